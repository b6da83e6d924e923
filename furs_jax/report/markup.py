"""HTML and SVG as text that can't be broken: whatever is put into an element is escaped."""

import html
from collections.abc import Iterable
from typing import Any

from furs_jax.run.text import printable

_EMPTY = {"br", "meta"}  # elements that have no end


class Markup(str):
    """Text that is markup already. Only `element` makes it, and what is written in this package."""


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
      tag: its name.
      children: markup, anything else as its text, lists of those; None is left out.
      attributes: with "_" for "-", and one at the end of words that Python has itself (`class_`);
        None is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = join(*children)
    return Markup(f"<{tag}{given}>" if tag in _EMPTY else f"<{tag}{given}>{inner}</{tag}>")


def join(*parts: Any) -> Markup:
    """Parts one behind the other, as an element's children."""
    return Markup("".join(map(_markup, parts)))


def _markup(part: Any) -> str:
    if part is None:
        return ""
    if isinstance(part, Markup):
        return part
    if isinstance(part, Iterable) and not isinstance(part, str):
        return join(*part)
    return _escaped(part)


def _escaped(value: Any) -> str:
    return html.escape(printable(f"{value:.6g}" if isinstance(value, float) else str(value)))
