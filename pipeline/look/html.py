"""HTML files that need nothing but themselves: templates, style, script and pictures in one, and what a browser may do.

Owns the Content-Security-Policy and the escaping, for every page that Maskmill writes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from pipeline.look.drawing import Picture, jpeg


def render(package: str, name: str, **values: object) -> str:
    """The template `name`.html of the folder templates/ of `package`, which extends base.html, with `values`. Its style
    is `name`.css, and its script `name`.js if there is one.

    Every value is escaped, also inside of attributes. Nothing is loaded, and no style and no script but these apply.
    """
    style, script = _text(package, f"{name}.css"), _text(package, f"{name}.js")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("pipeline.look")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(f"{name}.html")
    return template.render(policy=_policy(style, script), style=style, script=script, **values)


def data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64," + base64.b64encode(data).decode()


def jpeg_uri(rgb_hw3: Picture) -> str:
    return data_uri(jpeg(rgb_hw3), "image/jpeg")


def _text(package: str, name: str) -> str:
    """Empty if there is no such file."""
    path = files(package).joinpath("templates", name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _policy(style: str, script: str) -> str:
    """Allows this style, this script and pictures inside the page, and nothing else."""
    rules = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    rules += [f"script-src {_hash(script)}"] if script else []
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
