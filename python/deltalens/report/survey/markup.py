"""HTML from plain values, all of which are escaped."""

from __future__ import annotations

import math
from html import escape
from urllib.parse import quote

from deltalens.report.page import REPORT_FILE
from deltalens.report.text import readable

NONE = "–"


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


def text(value: str, limit: int = 200) -> str:
    """As reports show what files and models say."""
    return readable(value, limit)


def number(value: float) -> str:
    """Three significant digits with a sign."""
    return NONE if math.isnan(value) else f"{value:+.3g}".replace("-", "−")


def p_value(value: float) -> str:
    """Two significant digits."""
    return NONE if math.isnan(value) else f"{value:.2g}"


def report_link(run: str, latent: int | None = None) -> str:
    """The address of a run's report, or of a latent's card in it, beside the survey's page."""
    return quote(f"{run}/{REPORT_FILE}") + ("" if latent is None else f"#latent-{latent}")


def tokens(texts: list[str], count: int = 5) -> Markup:
    """The first few tokens that a direction promotes."""
    return join(*(h("span", text(one, 60), class_="token") for one in texts[:count]))
