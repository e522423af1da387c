"""The demo's verdicts over several seeds, from the whole sweeps that bench/adaptive.py leaves."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deltalens.organism import BEHAVIOURS
from deltalens.trials import SweepResult

RESULTS = Path(__file__).parent / "results"
FILE = "demo-seeds.csv"
COLUMNS = ["seed", "study", "direction", "set", "strength", "decision", "p"]
COLUMNS += ["change", "low", "high", "difference", "difference_low", "difference_high"]
ARMS = ("away", "toward")


def main() -> None:
    """Write bench/results/demo-seeds.csv from the runs under OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("adaptive-run"))
    out = parser.parse_args().out
    seeds = sorted(int(path.name.removeprefix("seed-")) for path in out.glob("seed-*"))
    with (RESULTS / FILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for seed in seeds:
            for study in BEHAVIOURS:
                result = SweepResult.load(out / f"seed-{seed}" / study)
                writer.writerows(rows(seed, study, result))


def rows(seed: int, study: str, result: SweepResult) -> Iterator[dict[str, Any]]:
    """One for each direction and set."""
    for direction, verdict in result.verdicts.items():
        for name, found in verdict.sets.items():
            own, other = found.suspects.interval, found.interval
            values = [seed, study, direction, name, verdict.strength, found.decision, found.p]
            values += [found.suspects.mean, *(own or (None, None))]
            values += [found.difference, *(other or (None, None))]
            yield dict(zip(COLUMNS, values, strict=True))


def seeds_table(results: Path) -> Iterator[str]:
    """For docs/proof.md: how often each set is beyond chance, and how its change spreads."""
    found = list(csv.DictReader((results / FILE).open(encoding="utf-8")))
    count = len({row["seed"] for row in found})
    yield (
        f"**Over {count} seeds** of prompts, pairs, controls and samples (`bench/adaptive.py`, "
        "`bench/demo_seeds.py`; the models and the SAE are the same): how often a set is beyond "
        "chance, and its mean change in points at the strength compared at, median and range.\n"
    )
    yield "| | steered away | | steered toward | |"
    yield "|---|--:|--:|--:|--:|"
    for study, name in dict.fromkeys((row["study"], row["set"]) for row in found):
        cells = [_cell(found, study, name, direction) for direction in ARMS]
        yield f"| {study}, {name} | {' | '.join(cells)} |"
    yield ""


def _cell(found: Sequence[dict[str, str]], study: str, name: str, direction: str) -> str:
    key = (study, name, direction)
    these = [row for row in found if (row["study"], row["set"], row["direction"]) == key]
    beyond = sum(row["decision"] == "beyond" for row in these)
    changes = [100 * float(row["change"]) for row in these if row["change"]]
    spread = f"{median(changes):+.1f} ({min(changes):+.1f} … {max(changes):+.1f})"
    return f"{beyond} of {len(these)} | {spread}"


def adaptive_sentence(results: Path) -> str:
    """For docs/proof.md: what ``--adaptive`` saves, and whether it says the same."""
    found = list(csv.DictReader((results / "adaptive.csv").open(encoding="utf-8")))
    rest = [row for row in found if row["seed"] != "0"]
    arms = {(row["seed"], row["study"], row["direction"]): row for row in rest}.values()
    spent = sum(int(row["adaptive_completions"]) for row in arms)
    whole = sum(int(row["full_completions"]) for row in arms)
    same = sum(row["full"] == row["adaptive"] for row in rest)
    last = max(int(row["seed"]) for row in rest)
    return (
        f"`--adaptive` gave {same} of {len(rest)} verdicts as the whole sweeps do, at "
        f"{spent / whole:.0%} of their completions, over seeds 1 to {last}"
        "; seed 0 helped to choose its rules and is left out (`bench/results/adaptive.csv`).\n"
    )


if __name__ == "__main__":
    main()
