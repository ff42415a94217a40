"""HTML pages from the templates beside this file."""

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2

from imvad_jax.marks import MARK
from imvad_jax.owned import write_own

_PACKAGE = "imvad_jax.reporting"


def write_page(path: Path, template: str, context: Mapping) -> Path:
    """Renders a template, which may use `asset(name)` for the text of a file beside it."""
    page = _environment().get_template(template).render(context)
    write_own(path, lambda file: file.write(page.encode()))
    return path


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,  # file and folder names are other people's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset": _asset, "mark": MARK}
    return environment


def _asset(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
