"""Whole and adaptive sweeps of the demo's two studies, side by side: verdicts and completions."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltalens.cli.demo.run import ordinary_mean
from deltalens.cli.demo.study import Case
from deltalens.organism import BEHAVIOURS, load_organism
from deltalens.study import Attribution
from deltalens.trials import SweepResult

RESULTS = Path(__file__).parent / "results" / "adaptive.csv"
COLUMNS = ["seed", "study", "direction", "set", "full", "full_p", "adaptive", "adaptive_p"]
COLUMNS += ["prompts", "full_completions", "adaptive_completions"]


def main() -> None:
    """Append a row for each seed, study, direction and set that has none yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("adaptive-run"))
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    done = {(row["seed"], row["study"]) for row in read_rows()}
    for seed in range(args.seeds):
        for name in BEHAVIOURS:
            if (str(seed), name) not in done:
                append_rows(study_rows(args.out / f"seed-{seed}", name, seed))
    print(summary(read_rows()))


def study_rows(out: Path, name: str, seed: int) -> list[dict[str, Any]]:
    """Both sweeps of a study: the adaptive one's completions are among the whole one's."""
    organism = load_organism()
    case = Case(organism, BEHAVIOURS[name], ordinary_mean(organism, seed), out, seed)
    there = (case.run / "metadata.json").exists()
    result = Attribution.load(case.run) if there else case.attribute()
    adaptive = case.steer(result, adaptive=True)
    return list(rows(seed, name, case.steer(result), adaptive))


def rows(
    seed: int, study: str, full: SweepResult, adaptive: SweepResult
) -> Iterator[dict[str, Any]]:
    """One for each direction and set."""
    for direction, verdict in full.verdicts.items():
        for name, found in verdict.sets.items():
            other = adaptive.verdicts[direction].sets.get(name)
            values = [seed, study, direction, name, found.decision, found.p]
            values += [other and other.decision, other and other.p, other and other.prompts]
            values += [completions(full, direction), completions(adaptive, direction)]
            yield dict(zip(COLUMNS, values, strict=True))


def completions(result: SweepResult, direction: Any) -> int:
    """Samples that an arm's counts are of."""
    arm = result.arms[direction]
    steered = sum(point.tally.samples for curve in arm.curves for point in curve.points)
    return arm.unsteered.samples + steered


def summary(found: list[dict[str, str]]) -> str:
    """How often the verdicts agree, and the share of completions."""
    same = sum(row["full"] == row["adaptive"] for row in found)
    arms = {(row["seed"], row["study"], row["direction"]): row for row in found}.values()
    spent = sum(int(row["adaptive_completions"]) for row in arms)
    share = spent / max(1, sum(int(row["full_completions"]) for row in arms))
    return f"{same} of {len(found)} verdicts are the same, at {share:.1%} of the completions"


def read_rows() -> list[dict[str, str]]:
    """What has been measured."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def append_rows(found: list[dict[str, Any]]) -> None:
    """Write the rows of one study behind the others."""
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
