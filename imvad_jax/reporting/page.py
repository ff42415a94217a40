"""HTML pages from the package's templates."""

import functools
from collections.abc import Mapping
from importlib import resources

import jinja2


def render(template: str, context: Mapping) -> str:
    """The text of a page; `style` is the style sheet that all pages share."""
    return _environment().get_template(template).render(context, style=_read("style.css"))


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,  # file and folder names are other people's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
