"""Pages from templates: one file each, which runs its own scripts only and loads nothing."""

# pyright: reportUnknownMemberType=false
# jinja2 leaves parts of some methods without types.

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

PAGE = Path(__file__).with_name("page")
"""Folder of the pages' templates, styles and scripts."""


def rendered(
    name: str,
    scripts: Mapping[str, str],
    *,
    filters: Mapping[str, Callable[..., str]] = {},
    **context: Any,
) -> bytes:
    """Return the page of a template of PAGE in UTF-8; what is not Unicode is shown as an escape.

    Texts of the context are escaped. The page's security policy allows `scripts` and no others.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"with_code": _with_code, **filters})
    html = environment.get_template(name).render(
        style=Markup(text_of("report.css")),
        hashes=Markup(" ".join(map(_hash, scripts.values()))),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("dqf"),
        **{name: Markup(script) for name, script in scripts.items()},
        **context,
    )
    return html.encode("utf-8", "backslashreplace")


def text_of(name: str) -> str:
    """Return a file of PAGE."""
    return (PAGE / name).read_text()


def _with_code(text: str) -> Markup:
    """Return a text, escaped, with what stands in backticks as code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))


def _hash(script: str) -> str:
    """Return the hash by which the page's security policy allows a script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
