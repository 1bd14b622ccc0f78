"""The command `maskmill` of an installation: `maskmill generate source=... out=...` is `python -m jobs.generate ...`.

Owns the names of the commands. Their settings, outputs and exit codes are their own.
"""

from __future__ import annotations

import importlib
import sys
from importlib.resources import files

from pipeline import __version__
from pipeline.errors import WRONG_CONFIGURATION
from pipeline.plain_values import nearest
from pipeline.texts import printable

COMMANDS = {
    "generate": "make masks: source=folder|s3://...|.tar|list out=... [recipe=sa1b] [model=vit_h]",
    "look": "write a page with images of an output and their masks: out=... [n=12]",
    "report": "write a page of numbers, figures and masks of an output: out=...",
    "verify": "recount an output from its parts: out=...",
    "compare": "say what differs between two outputs of the same images: a=... b=...",
    "explain": "show every step from points to masks of one image: image=... [recipe=sam]",
    "export": "write an output in the form of another tool: out=... to=... form=sa1b|coco|...",
    "evaluate": "measure a model on drawn scenes, or the masks of an output",
    "train": "train a small model",
    "weights": "fetch the released weights of a model: name=vit_b|sam2.1_tiny|... [to=folder|s3://...]",
    "submit": "run generate on a Ray cluster, from a checkout: submit.address=... source=s3://... out=s3://...",
}
"""Name -> what it does; the name is also its module's in jobs/."""


def main() -> int:
    """Hand the rest of the command line to the command that it begins with. Returns its exit code; 2 for no command."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"Maskmill {__version__}\n")
        return 0
    if name not in COMMANDS:
        asked = nearest(name, list(COMMANDS)) or f"; there are {', '.join(COMMANDS)}"
        sys.stderr.write(printable(f"Maskmill: there is no command {name}{asked}") + "\n")
        return WRONG_CONFIGURATION
    sys.argv = [f"maskmill {name}", *rest]
    return importlib.import_module(f"jobs.{name}").main()


def help_text() -> str:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    sample = files("jobs") / "sample" / "scenes.tar"
    return (
        f"Maskmill {__version__}: maskmill COMMAND setting=value ...\n\n{listed}\n\n"
        f"Every setting of a command: maskmill COMMAND --cfg job\n"
        f"A first run: maskmill generate source={sample} out=out/scenes\n"
    )


if __name__ == "__main__":
    sys.exit(main())
