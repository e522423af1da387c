"""Values as a survey's page shows them."""

from __future__ import annotations

import math
from urllib.parse import quote

from deltalens.report.page import REPORT_FILE
from deltalens.report.text import readable
from deltalens.visible.markup import Markup, h, join

NONE = "–"


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
