"""HTML from plain values, all of which are escaped."""

from __future__ import annotations

from html import escape

from deltalens.visible import visible


class Markup(str):
    """Text that is HTML already."""


def h(name: str, *children: str, **attributes: str | None) -> Markup:
    """An element; ``class_`` stands for class, ``aria_label`` for aria-label. Children that are no
    markup become text."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children))


def safe(text: str) -> Markup:
    """Text that neither is markup nor hides or moves anything."""
    return Markup(escape(visible(text)))


def link(address: str, text: str | None = None) -> Markup:
    """To another site, in a window of its own, which is not told from where."""
    return h(
        "a",
        safe(text or address),
        href=address,
        target="_blank",
        rel="noopener noreferrer",
    )
