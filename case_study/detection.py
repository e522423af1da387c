"""The part of docs/detection.md that is the case study's, from what `deltalens detect` wrote."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from deltalens.study.detection.result import ABOUT_FILE, TABLE_FILE, Detection, read_detection
from deltalens.study.detection.sentences import auc_text, detection_sentences
from pages import put

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "detection.md"
RESULTS = HERE / "results"
CASES = {"validation": "Undesired validation", "advice": "Bad advice"}
MARKS = (
    "<!-- detection of the case study: made by case_study/detection.py -->",
    "<!-- end of detection -->",
)
SHOWN = 10


def main() -> None:
    """Copy the files of --out, where they are, to results/, and write the page's part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    out = parser.parse_args().out
    for name in CASES:
        for file in (TABLE_FILE, ABOUT_FILE):
            if (out / name / file).exists():
                shutil.copyfile(out / name / file, RESULTS / name / file)
    parts = (line for name, title in CASES.items() for line in case(name, title))
    put(PAGE, *MARKS, "\n".join(parts))


def case(name: str, title: str) -> Iterator[str]:
    """A behaviour's sentences and table; nothing where it was not measured."""
    found = read_detection(RESULTS / name)
    if found is None:
        return
    yield f"\n### {title}\n"
    yield " ".join(detection_sentences(found)) + "\n"
    yield from table(found)


def table(found: Detection) -> Iterator[str]:
    """The mean difference and the first latents."""
    kinds = list(dict.fromkeys((row.tokens, row.over) for row in found.rows))
    yield "| rank | latent | " + " | ".join(f"{where}, {over}" for where, over in kinds) + " |"
    yield "| ---: | ---: |" + " ---: |" * len(kinds)
    for latent in list(dict.fromkeys(row.latent for row in found.rows))[: 1 + SHOWN]:
        rows = found.of_latent(latent)
        named = "mean difference" if latent is None else str(latent)
        rank = "" if rows[0].rank is None else str(rows[0].rank)
        yield f"| {rank} | {named} | " + " | ".join(map(auc_text, rows)) + " |"
    yield ""


if __name__ == "__main__":
    main()
