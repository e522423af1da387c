"""What the guard makes of faults put into the kernels' results; bench/results/faults.csv.

PYTHONPATH=python:bench python bench/faults.py [--faults 50] [--latents 131072]
TRITON_INTERPRET=1 PYTHONPATH=python:bench python bench/faults.py --impl triton --latents 4224

Of every kind and place so many faults are tried, half of them in each form. A fault is without
effect when the returned latents are the right ones all the same.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.engine.exact import ExactTokens
from deltalens.engine.moment import CrossMoment
from deltalens.engine.problem import Problem, moment_problem, token_problem
from deltalens.engine.scan import top_latents
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.ranking import Ranking
from deltalens.engine.trust.guard import KernelWarning
from fault_kinds import KINDS, PLACES, Fault, with_fault
from machine import describe

RESULTS = Path(__file__).parent / "results" / "faults.csv"
OUTCOMES = ("caught", "without effect", "wrong, uncertified", "wrong, certified")


@dataclass(frozen=True)
class Study:
    """A random study and the right answers."""

    rows: TokenRows
    W_dec: Tensor
    k: int
    best: list[int]

    @classmethod
    def make(cls, tokens: int, d_model: int, n_latents: int, k: int) -> Study:
        random = torch.Generator().manual_seed(1)
        acts, grads = (torch.randn(tokens, d_model, generator=random) for _ in range(2))
        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
        rows = TokenRows(acts, grads, torch.zeros(d_model, dtype=torch.float64), weights)
        W_dec = torch.randn(n_latents, d_model, generator=random) / d_model**0.5
        exact = torch.cat([ExactTokens(rows).scores(part)[0] for part in W_dec.split(8192)])
        return cls(rows, W_dec, k, exact.topk(k).indices.tolist())

    def problem(self, form: str, impl: str) -> Problem:
        rows = self.rows
        if form == "quadratic":
            moment = CrossMoment(self.W_dec.shape[1])
            moment.add(rows.acts, rows.grads, weights=rows.weights)
            return moment_problem([moment], self.W_dec, impl)
        decoder = as_decoder(self.W_dec)
        return token_problem(rows.acts, rows.grads, decoder, rows.baseline, rows.weights, impl)

    def outcome(self, problem: Problem) -> str:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (top,) = top_latents(problem, self.k, Ranking(), normalize=False)
        right = sorted(top.latents.tolist()) == sorted(self.best)
        if any(issubclass(each.category, KernelWarning) for each in said):
            assert right, "a scan that was done again is not right"
            return "caught"
        if right:
            return "without effect"
        return "wrong, certified" if top.certified else "wrong, uncertified"


def counted(study: Study, impl: str, kind: str, place: str, faults: int) -> Counter[str]:
    """Outcomes of so many faults."""
    found: Counter[str] = Counter()
    for seed in range(faults):
        problem = study.problem("token" if seed % 2 else "quadratic", impl)
        found[study.outcome(with_fault(problem, Fault(kind, place, seed), study.best[0]))] += 1
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impl", default="cpp")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--latents", type=int, default=131_072)
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def write(rows: list[dict[str, object]], impl: str) -> None:
    """Replace this implementation's rows."""
    kept = []
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8", newline="") as stream:
            kept = [row for row in csv.DictReader(stream) if row["impl"] != impl]
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main() -> None:
    options = arguments()
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # what is found here is no verdict
    study = Study.make(32, 24, options.latents, k=100 if options.latents > 10_000 else 10)
    rows: list[dict[str, object]] = []
    for kind in KINDS:
        for place in PLACES:
            found = counted(study, options.impl, kind, place, options.faults)
            counts = {outcome: found[outcome] for outcome in OUTCOMES}
            rows.append(
                {"impl": options.impl, "latents": options.latents, "k": study.k, "fault": kind,
                 "place": place, "faults": options.faults, **counts, **describe()}
            )  # fmt: skip
            print(
                f"{options.impl} {kind}, {place}: "
                + ", ".join(f"{n} {o}" for o, n in found.items())
            )
    if not options.no_results:
        write(rows, options.impl)


if __name__ == "__main__":
    main()
