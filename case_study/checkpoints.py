"""The adapter of the case study at three scales, as checkpoints: docs/checkpoints.md's example.

Every step is a command that can be typed by itself, from the project's root; it is printed before
it runs, and left out where it has run already. The adapter at half of its scale stands for a model
half way through training.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltalens.storage.cells import cell_text
from pages import put
from run import HERE, ROOT, SITE, Step, deltalens, run

PAGE = ROOT / "docs" / "checkpoints.md"
FIGURE = ROOT / "docs" / "checkpoints.svg"
START, END = "<!-- example: made by case_study/checkpoints.py -->", "<!-- end of example -->"
SCALES = {"scale0": 0.0, "scale0.5": 0.5, "scale1": 1.0}
KEPT = ("checkpoints.csv", "checkpoints.json")
SHOWN = 8


def main() -> None:
    """Run what has not run, keep the small files, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=HERE / "out", help="of case_study/run.py")
    parser.add_argument("--pairs", type=int, default=30, help="of the advice case; default: 30")
    args = parser.parse_args()
    os.chdir(ROOT)
    out = args.study / "checkpoints"
    out.mkdir(parents=True, exist_ok=True)
    lines = (args.study / "advice-pairs.jsonl").read_text(encoding="utf-8").splitlines(True)
    (out / "pairs.jsonl").write_text("".join(lines[: args.pairs]), encoding="utf-8")
    for step in steps(args.study, out):
        if not step.makes.exists():
            run(step, out / "steps.jsonl")
    kept = HERE / "results" / "checkpoints"
    kept.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        shutil.copyfile(out / "course" / file, kept / file)
    shutil.copyfile(out / "course" / "checkpoints.svg", FIGURE)
    write_page(kept)


def steps(study: Path, out: Path) -> Iterator[Step]:
    """All commands, in order."""
    at = ["--site", SITE, "--sae", study / "sae", "--pairs", out / "pairs.jsonl"]
    for name, scale in SCALES.items():
        model, folder = scaled(study, out, name, scale), out / name
        yield deltalens(
            f"{name}: attribute", folder / "metadata.json", "attribute", "--model", model, *at,
            "--baseline", study / "baseline.safetensors", "--flips", 10_000, "--check", 0,
            "--save-scores", "--out", folder,
        )  # fmt: skip
        yield deltalens(
            f"{name}: delta-activation", folder / "delta_activation.safetensors",
            "delta-activation", "--model", model, *at, "--out", folder,
        )  # fmt: skip
    yield deltalens(
        "compare", out / "course" / "checkpoints.json", "compare", "--checkpoints",
        *(out / name for name in SCALES), "--sae", study / "sae", "--top", 5,
        "--out", out / "course",
    )  # fmt: skip


def scaled(study: Path, out: Path, name: str, scale: float) -> Path:
    """The model, its adapter, or a copy of the adapter whose update is ``scale`` times as large."""
    if scale in (0.0, 1.0):
        return study / ("lora" if scale else "model")
    place = out / f"lora-{name}"
    if not place.exists():
        shutil.copytree(study / "lora", place)
        path = place / "adapter_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["lora_alpha"] *= scale
        path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return place


def write_page(kept: Path) -> None:
    """Replace what stands between the markers."""
    put(PAGE, START, END, "\n".join(_example(kept)))


def _example(kept: Path) -> Iterator[str]:
    said = json.loads((kept / "checkpoints.json").read_text(encoding="utf-8"))
    with (kept / "checkpoints.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    pairs = said["checkpoints"][0]["pairs"]
    yield (
        f"SmolLM2-135M-Instruct and the case study's adapter for bad advice at half and whole "
        f"scale (`python case_study/checkpoints.py`), {pairs} pairs, {said['site']}, "
        f"{said['n_latents']:,} latents, the first five of each ranking. "
        f"{_certain(rows, len(said['checkpoints']))}\n"
    )
    names = [one["name"] for one in said["checkpoints"]]
    yield (
        "| latent | "
        + " | ".join(f"score (rank), {name}" for name in names)
        + (" | change, first to last | mean activation with \\| without it, ")
        + " | ".join(names)
        + " | promotes |"
    )
    yield "|--:|" + "--:|" * (2 * len(names) + 1) + "---|"
    for latent in dict.fromkeys(row["latent"] for row in rows):
        yield _line([row for row in rows if row["latent"] == latent])
    yield "\n![The course of the first five latents](checkpoints.svg)"


def _certain(rows: list[dict[str, str]], checkpoints: int) -> str:
    """What of it is no chance."""
    tested = [row for row in rows if row["p_value"]]
    stand_out = sum(bool(_star(row)) for row in tested)
    last = rows[checkpoints - 1 :: checkpoints]
    known = [row for row in last if row["score_change_stderr"]]
    moved = sum(
        abs(float(row["score_change"])) > 3 * float(row["score_change_stderr"]) for row in known
    )
    said = (
        f"{stand_out} of the {len(tested)} scores that were tested stand out from chance "
        f"(family-wise, \\*); {moved} of the {len(known)} changes whose standard error is known "
        "are more than three of them."
    )
    if stand_out or moved:
        return said
    return f"{said} Ranks that rise and lines that cross are no findings here."


def _line(rows: list[dict[str, str]]) -> str:
    scores = [f"{_number(row['score'])} ({row['rank'] or '–'}{_star(row)})" for row in rows]
    last = rows[-1]
    change = _number(last["score_change"])
    if last["score_change_stderr"]:
        change += f" ± {float(last['score_change_stderr']):.1g}"
    means = [
        f"{_plain(row['activation_mean'])} \\| {_plain(row['activation_mean_against'])}"
        for row in rows
    ]
    promotes = " ".join(f"`{word}`" for word in cell_text(last["promotes"]).split()[:3])
    return "| " + " | ".join([last["latent"], *scores, change, *means, promotes]) + " |"


def _star(row: dict[str, Any]) -> str:
    return "\\*" if row["p_value"] and float(row["p_value"]) <= 0.05 else ""


def _number(text: str) -> str:
    return f"{float(text):+.4f}".replace("-", "−") if text else "–"


def _plain(text: str) -> str:
    return f"{float(text):.3g}" if text else "–"


if __name__ == "__main__":
    main()
