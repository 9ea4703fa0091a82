"""Pages as HTML: one file with its style, its script and its data in it, which asks nobody for anything.

Text of models and data is never markup: Jinja2 escapes what stands in the page, `rows.script_json` what stands in its
script, and the page's own policy lets no other script run and no address be asked.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = "embedgrad_cli.reports"


def render(template: str, **page: object) -> bytes:
    """A page of `templates/` as UTF-8. The same values give the same bytes."""
    style, script = _asset("style.css"), _asset("rows.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    html = _environment().get_template(template).render(style=style, script=script, policy=policy, **page)
    return html.encode("utf-8", "replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markup"] = Markup  # of our own files, and of what script_json has escaped
    return environment


@cache
def _asset(name: str) -> Markup:
    return Markup((files(TEMPLATES) / "templates" / name).read_text(encoding="utf-8"))


def _digest(text: str) -> Markup:
    """A source of a content security policy: exactly this text."""
    return Markup("sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
