"""Whether the plan picks the fastest form and implementation: over a grid of shapes, on this CPU.

Writes bench/results/plan-<cpu>.csv: a row per shape with the measured and the estimated seconds of
every candidate, and the ratio of the plan's choice to the fastest. About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import deltalens
from deltalens.engine.cost.planner import Plan
from deltalens.engine.cost.roofs import measured_roofs
from machine import interleaved, seconds
from results import Row, write_rows

TOKENS = (64, 256, 1024, 4096, 16_384)
LATENTS = (4096, 32_768, 131_072)
WIDTHS = (256, 768, 2304)
DTYPES = (torch.float32, torch.bfloat16)
KS = (10, 100, 1000)
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
ENOUGH = 0.8  # seconds for the rounds of a shape
SLOWEST = 3.0  # seconds that a candidate may be expected to take
HOPELESS = 2.5  # times the fastest: not worth another round
GOAL = 1.3


@dataclass(frozen=True)
class Case:
    """One shape of the grid."""

    tokens: int
    n_latents: int
    d_model: int
    dtype: torch.dtype
    k: int

    def plan(self) -> Plan:
        sizes = (self.tokens, self.n_latents, self.d_model)
        return deltalens.plan(*sizes, k=self.k, dtype=self.dtype)


def grid(every: int) -> Iterator[Case]:
    """Every so-many-th shape; k goes round, and shapes that would take too long are left out."""
    shapes = itertools.product(LATENTS, WIDTHS, DTYPES, TOKENS)
    for number, (n_latents, d_model, dtype, tokens) in enumerate(shapes):
        case = Case(tokens, n_latents, d_model, dtype, KS[number % len(KS)])
        if number % every == 0 and case.plan().costs[-1].seconds <= SLOWEST:
            yield case


def measure(case: Case) -> Row:
    """Medians of all candidates, in rounds that run each once; of hopeless ones a single time."""
    acts, grads = torch.randn(2, case.tokens, case.d_model)
    W_dec = (torch.randn(case.n_latents, case.d_model) / case.d_model**0.5).to(case.dtype)
    plan = case.plan()
    works = {
        (cost.form, cost.impl): partial(_topk, acts, grads, W_dec, case.k, cost.form, cost.impl)
        for cost in plan.costs
    }
    times = _times(works)
    best = min(times, key=lambda name: times[name])
    chosen = (plan.form, plan.impl)
    row: Row = {
        "tokens": case.tokens,
        "n_latents": case.n_latents,
        "d_model": case.d_model,
        "dtype": str(case.dtype).removeprefix("torch."),
        "k": case.k,
        "chosen": "/".join(chosen),
        "fastest": "/".join(best),
        "ratio": f"{times[chosen] / times[best]:.2f}",
    }
    for name in sorted(works):
        row["/".join(name)] = f"{times[name]:.4f}"
        row["/".join((*name, "estimate"))] = f"{plan.of(*name).seconds:.4f}"
    return row


def _times(works: dict[tuple[str, str], Callable[[], Tensor]]) -> dict[tuple[str, str], float]:
    first = {name: seconds(work) for name, work in works.items()}
    close = {
        name: work for name, work in works.items() if first[name] < HOPELESS * min(first.values())
    }
    fitting = int(ENOUGH / sum(first[name] for name in close))
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, fitting))
    return first | {name: statistics.median(t) for name, t in interleaved(close, rounds).items()}


def _topk(acts: Tensor, grads: Tensor, W_dec: Tensor, k: int, form: str, impl: str) -> Tensor:
    return deltalens.attribution_topk(acts, grads, W_dec, k, form=form, impl=impl).latents


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a seventh of the shapes, and no file")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    print(measured_roofs("cpu"))
    rows = []
    for case in grid(7 if quick else 1):
        rows.append(measure(case))
        if len(rows) == 1:
            print(*rows[0], sep="\t")
        print(*rows[-1].values(), sep="\t", flush=True)
    if not quick:
        print(write_rows("plan", rows))
    ratios = [float(str(row["ratio"])) for row in rows]
    worst = rows[ratios.index(max(ratios))]
    shape = " ".join(
        f"{name}={worst[name]}" for name in ("tokens", "n_latents", "d_model", "dtype", "k")
    )
    print(
        f"within {GOAL}× in {sum(ratio <= GOAL for ratio in ratios)} of {len(rows)}; "
        f"worst {max(ratios):.2f}× at {shape}: {worst['chosen']}, fastest {worst['fastest']}"
    )


if __name__ == "__main__":
    main()
