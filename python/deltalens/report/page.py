"""One HTML file from a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from deltalens.report.beside import beside_document
from deltalens.report.document import as_script_data, report_document
from deltalens.report.essentials import essentials
from deltalens.report.evidence import Evidence, gather
from deltalens.report.figures import FIGURE_DIRECTORY, save_figure
from deltalens.report.packing import packed
from deltalens.report.shell import filled_page
from deltalens.storage.atomic import write_text
from deltalens.trials.result import SweepResult
from deltalens.trials.verdicts.sets import SET_NAMES, suspect_names
from deltalens.trials.verdicts.shown.curves import figure_2
from deltalens.trials.verdicts.shown.panels import COLOURS
from deltalens.trials.verdicts.shown.points import figure_1
from deltalens.visible.figures.style import inline

REPORT_FILE = "report.html"

_STYLES = ("page.css", "parts.css", "print.css")
_SCRIPTS = (
    "dom.js",
    "numbers.js",
    "unpack.js",
    "theme.js",
    "table.js",
    "tokens.js",
    "completions.js",
    "curve.js",
    "bars.js",
    "card.js",
    "dialog.js",
    "keys.js",
    "print.js",
    "figures.js",
    "sections.js",
    "main.js",
)
_CAPTIONS = {
    "figure-1": "One point per latent at its strongest strength within the incoherence budget, in "
    "rank order from left to right, with the 95% interval of its rate. ×: mean of a set. Gray "
    "band: from the smallest to the largest change of any random latent.",
    "figure-2": "The first latents of the first set at every strength tried; a ring marks the "
    "strength chosen, the dashed line the incoherence budget, the gray band random latents.",
}
_TITLES = {"figure-1": "What steering changed", "figure-2": "Over all strengths"}
_THEMED = {COLOURS[name]: f"var(--{ranking})" for ranking, name in SET_NAMES.items()}


def write_report(
    run: str | Path,
    *,
    beside: Sequence[str | Path] = (),
    out: str | Path | None = None,
    neuronpedia: str | None = None,
) -> Path:
    """Write ``report.html`` and, after a sweep, the figures of a run directory.

    beside: runs of other behaviours, whose rankings are compared with this one. out: another
    place for the page. neuronpedia: that site's name of the SAE, MODEL/LAYER-SOURCE, to link
    latents there where the run does not record it. The page is one file that loads nothing; what a
    run has not (examples, ablation, steering, names) is not on it. Returns the page's path; raises
    :class:`InputError` for a run that is incomplete or damaged, or that cannot be compared.
    """
    evidence = gather(run, neuronpedia=neuronpedia)
    compared = [beside_document(evidence, other) for other in beside]
    figures = {} if evidence.steering is None else _figures(evidence.run, evidence.steering.result)
    path = evidence.run / REPORT_FILE if out is None else Path(out)
    write_text(path, page(evidence, figures, compared))
    return path


def write_figures(run: str | Path) -> list[Path]:
    """Only the figures of a run with a finished sweep, as SVG and PNG."""
    names = _figures(Path(run), SweepResult.load(run))
    folder = Path(run) / FIGURE_DIRECTORY
    return [folder / f"{name}.{ending}" for name in names for ending in ("svg", "png")]


def _figures(run: Path, result: SweepResult) -> dict[str, str]:
    draws = {"figure-1": figure_1}
    if suspect_names(result.sets):
        draws["figure-2"] = figure_2
    return {
        name: save_figure(run / FIGURE_DIRECTORY, name, partial(draw, result))
        for name, draw in draws.items()
    }


def page(evidence: Evidence, figures: dict[str, str], compared: Sequence[Any] = ()) -> str:
    """The page's text."""
    document = report_document(evidence, compared)
    parts = {
        **essentials(document),
        "title": escape(f"{document['behaviour']} – deltalens"),
        "figures": "".join(_figure(name, svg) for name, svg in figures.items()),
        "data": as_script_data(packed(document)),
    }
    return filled_page("page.html", parts, styles=_STYLES, scripts=_SCRIPTS)


def _figure(name: str, svg: str) -> str:
    drawn = inline(svg)
    for colour, variable in _THEMED.items():
        drawn = drawn.replace(colour, variable)
    drawn = drawn.replace("<svg ", f'<svg role="group" aria-label="{_TITLES[name]}" ', 1)
    return (
        f'<figure class="figure" id="{name}"><h2>{_TITLES[name]}</h2>'
        f'<div class="scroll">{drawn}</div><figcaption>{_CAPTIONS[name]}</figcaption></figure>\n'
    )
