"""What is optimised: the model, the head that only training needs, and branches that are skipped at random.

Legend: B images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.hiera import Hiera
from model.sam import Sam
from model.training.dense import DenseHead


class Learner(nn.Module):
    """A model in training. `drop_path` is the chance that an image skips a branch of the last encoder block.

    It falls linearly to 0 at the first block (arXiv:1603.09382). The model itself knows nothing of it: hooks on its
    branches do it, in training mode alone.
    """

    def __init__(self, config: ModelConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.sam = Sam(config)
        self.dense = DenseHead(config)
        self.drops: list[DropPath] = []
        blocks = _blocks(self.sam.image_encoder) if drop_path else []
        for index, block in enumerate(blocks):
            for branch in (block.get_submodule("attn"), block.get_submodule("mlp")):
                self.drops.append(DropPath(drop_path * index / max(1, len(blocks) - 1)))
                branch.register_forward_hook(self.drops[-1])

    def seed(self, rng: torch.Generator) -> None:
        """Take random choices from there until the next call."""
        for drop in self.drops:
            drop.rng = rng


def _blocks(encoder: nn.Module) -> list[nn.Module]:
    """The transformer blocks of either encoder that can be trained."""
    return [*encoder.get_submodule("trunk.blocks" if isinstance(encoder, Hiera) else "blocks").children()]


class DropPath:
    """A forward hook: the output is 0 for some images, and as much larger for the others."""

    def __init__(self, chance: float) -> None:
        self.chance = chance
        self.rng: torch.Generator | None = None

    def __call__(self, branch: nn.Module, _inputs: object, out_BggC: Tensor) -> Tensor:
        if not branch.training or self.rng is None:
            return out_BggC
        kept_B = torch.rand(len(out_BggC), generator=self.rng, device=self.rng.device) >= self.chance
        return out_BggC * (kept_B.to(out_BggC.dtype) / (1 - self.chance))[:, None, None, None]
