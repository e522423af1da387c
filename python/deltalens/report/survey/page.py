"""A survey's page, and the reports that it opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deltalens.report.page import write_report
from deltalens.report.shell import filled_page
from deltalens.report.survey.map_part import map_part
from deltalens.report.survey.markup import text
from deltalens.report.survey.shared_part import shared_part
from deltalens.report.survey.studies_part import studies_part
from deltalens.report.text import place_name
from deltalens.storage.atomic import write_text
from deltalens.study.survey.directory import PAGE_FILE
from deltalens.study.survey.result import Survey
from deltalens.study.survey.summary import summary
from deltalens.study.survey.words import multiplicity_sentences
from deltalens.version import __version__
from deltalens.visible.markup import Markup, h, join


def write_survey_report(directory: str | Path) -> Path:
    """Write ``survey.html`` and the report of every finished study of a survey.

    The page is one file that loads nothing; its links open the reports beside it. Returns its
    path; raises :class:`InputError` where there is no survey, or a damaged study.
    """
    found = Survey.load(directory)
    for run in found.runs.values():
        write_report(found.directory / run)
    path = found.directory / PAGE_FILE
    write_text(path, survey_page(found))
    return path


def survey_page(survey: Survey) -> str:
    """The page's text."""
    found = summary(survey)
    parts = {
        "facts": _facts(survey, found),
        "findings": join(*(h("li", text(s, 400)) for s in _findings(found))),
        "map": map_part(found),
        "studies": studies_part(found),
        "shared": shared_part(found),
        "version": join(f"deltalens {__version__}"),
    }
    return filled_page(
        "survey.html",
        parts,
        styles=("page.css", "parts.css", "survey.css", "print.css"),
        scripts=("theme.js", "survey.js"),
    )


def _facts(survey: Survey, found: Mapping[str, Any]) -> Markup:
    metadata = next(iter(survey.values())).metadata if survey else {"model": {}}
    facts = {
        "Survey": place_name(str(survey.directory)),
        "Model": place_name(str(metadata["model"].get("name", ""))),
        "Behaviours": str(len(found["behaviours"])),
        "Sites and SAEs": str(len(found["places"])),
        "Studies": str(len(found["studies"])),
        "Target": found["target"],
    }
    return join(*(h("div", h("dt", name), h("dd", value)) for name, value in facts.items()))


def _findings(found: Mapping[str, Any]) -> list[str]:
    every = list(multiplicity_sentences(found["multiplicity"]))
    most = max(found["studies"], key=lambda study: study["stand_out"], default=None)
    if most is not None and most["stand_out"]:
        where = most["site"] if most["sae"] is None else f"{most['site']} with {most['sae']}"
        every.insert(
            0,
            f"Most stands out of {most['behaviour']} at {where}: {most['stand_out']} of "
            f"{most['ranked']} ranked latents.",
        )
    return every
