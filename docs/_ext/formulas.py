"""Formulas as MathML, which browsers show by themselves: nothing is loaded to read a page."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
SIZED = re.compile(r"\\([Bb]igg?)\s*(\\?[^a-zA-Z\s]|\\[a-zA-Z]+)")
OPENING = ("(", "[", r"\{", r"\lvert", r"\lVert", r"\langle")
CLOSING = (")", "]", r"\}", r"\rvert", r"\rVert", r"\rangle")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def plainer(source: str) -> str:
    """The formula in those of LaTeX's words that the translator knows.

    It would take 12 for one number in ``\frac12`` and ``x^12``, where LaTeX takes digits apart.
    """
    code = re.sub(r"(\\[dt]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", source)
    code = re.sub(r"([\^_])(\d)(?=\d)", r"\1{\2}", code)
    code = SIZED.sub(sided, code).replace(r"\dots", r"\ldots")
    if r"\\" in code and r"\begin" not in code:
        return rf"\begin{{align*}}{code}\end{{align*}}"
    return code


def sided(found: re.Match[str]) -> str:
    """A delimiter with its size and side; one that has no side cannot have a size."""
    size, delimiter = found.groups()
    if delimiter in OPENING or delimiter in CLOSING:
        return f"\\{size}{'l' if delimiter in OPENING else 'r'}{delimiter}"
    return delimiter


def mathml(node: nodes.Node, as_block: bool) -> str:
    """The formula, or what it was written as, with a warning, where it is not understood."""
    source = node.astext().strip()
    try:
        return "".join(latex2mathml.tex2mathml(plainer(source), as_block=as_block).splitlines())
    except Exception as error:
        LOGGER.warning("a formula is not understood: %s: %s", source, error, location=node)
        return html.escape(source)
