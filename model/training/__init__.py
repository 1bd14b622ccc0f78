"""Training of the small models: drawn scenes, prompts, losses and the loop. Nothing at inference time imports it."""
