"""Formulas as MathML, which browsers show by themselves: nothing is loaded to read a page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def mathml(node: nodes.Node, as_block: bool) -> str:
    """The formula, or what it was written as, with a warning, where it is not understood."""
    source = node.astext().strip()
    code = f"\\begin{{align*}}{source}\\end{{align*}}" if "\\\\" in source else source
    try:
        return "".join(latex2mathml.tex2mathml(code, as_block=as_block).splitlines())
    except Exception as error:
        LOGGER.warning("a formula is not understood: %s: %s", source, error, location=node)
        return nodes.literal(source).astext()
