"""HTML by construction: a string is text and is escaped, only `Markup` passes as it is."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"img", "meta", "br", "hr", "source", "wbr", "col"})


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


Child = str | Iterable[str] | None


def tag(name: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """An element. `class_` is `class`, other underscores are hyphens; None and False are left out."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after another; text is escaped."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            parts.append(child if isinstance(child, Markup) else escape(child))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))
