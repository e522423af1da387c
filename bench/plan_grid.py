"""Whether the plan picks the fastest form and implementation: over a grid of shapes, on this CPU.

Writes bench/results/plan-<cpu>.csv as it goes: a row per shape with the measured and the estimated
seconds of every candidate, and the ratio of the plan's choice to the fastest. The plan has rates
that were measured at the start. A candidate that is expected to take HOPELESS_BY_PLAN times the
cheapest is not run. `--level avx2` (or avx512, portable) does all that with the vector instructions
of such a processor, also in torch's products, and writes plan-<cpu>-avx2.csv. Five to eight minutes
each on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import deltalens
from deltalens.engine.cost.planner import Plan
from deltalens.engine.numerics.extension import cpu_level
from deltalens.engine.trust.rates import measure
from machine import interleaved, seconds
from results import Row, write_rows

TOKENS = (64, 256, 1024, 4096, 16_384)
LATENTS = (16_384, 32_768, 65_536, 131_072)
WIDTHS = (256, 768, 2304)
DTYPES = (torch.float32, torch.bfloat16)
KS = (10, 100, 1000)
LEAST_ROUNDS, MOST_ROUNDS = 2, 15
ENOUGH = 0.6  # seconds for the rounds of a shape
SLOWEST = 6.0  # seconds that a shape's candidates may be expected to take, each once
HOPELESS_BY_PLAN = 3.0
HOPELESS = 2.0  # times the fastest: not worth another round
GOAL = 1.25
# Of what torch multiplies with.
TORCH_LEVELS = {"avx512": "AVX512_CORE_VNNI", "avx2": "AVX2", "portable": "SSE41"}


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

    def names(self) -> list[tuple[str, str]]:
        """Forms and implementations that are run, the cheapest by the plan first."""
        costs = self.plan().costs
        most = HOPELESS_BY_PLAN * costs[0].seconds
        return [(cost.form, cost.impl) for cost in costs if cost.seconds <= most]


def grid(every: int) -> Iterator[Case]:
    """Every so-many-th shape; k goes round, and shapes that would take too long are left out."""
    shapes = itertools.product(LATENTS, WIDTHS, DTYPES, TOKENS)
    for number, (n_latents, d_model, dtype, tokens) in enumerate(shapes):
        case = Case(tokens, n_latents, d_model, dtype, KS[number % len(KS)])
        expected = sum(case.plan().of(*name).seconds for name in case.names())
        if number % every == 0 and expected <= SLOWEST:
            yield case


def measure_case(case: Case) -> Row:
    """Medians of all candidates, in rounds that run each once; of hopeless ones a single time."""
    acts, grads = torch.randn(2, case.tokens, case.d_model)
    W_dec = (torch.randn(case.n_latents, case.d_model) / case.d_model**0.5).to(case.dtype)
    plan = case.plan()
    times = _times(
        {name: partial(_topk, acts, grads, W_dec, case.k, *name) for name in case.names()}
    )
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
        "screen": any(step.name == "bound" for step in plan.cost.steps),
    }
    for name in sorted((cost.form, cost.impl) for cost in plan.costs):
        row["/".join(name)] = f"{times[name]:.4f}" if name in times else ""
        row["/".join((*name, "estimate"))] = f"{plan.of(*name).seconds:.4f}"
    return row


def _times(works: dict[tuple[str, str], Callable[[], Tensor]]) -> dict[tuple[str, str], float]:
    first = {name: seconds(work) for name, work in works.items()}
    close = {
        name: work for name, work in works.items() if first[name] < HOPELESS * min(first.values())
    }
    if len(close) == 1:
        return first
    fitting = int(ENOUGH / sum(first[name] for name in close))
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, fitting))
    return first | {name: statistics.median(t) for name, t in interleaved(close, rounds).items()}


def _topk(acts: Tensor, grads: Tensor, W_dec: Tensor, k: int, form: str, impl: str) -> Tensor:
    return deltalens.attribution_topk(acts, grads, W_dec, k, form=form, impl=impl).latents


def _at_level(level: str) -> None:
    """This program again, on the vector instructions of a lesser processor."""
    os.environ["DELTALENS_CPU_LEVEL"] = level
    os.environ["ONEDNN_MAX_CPU_ISA"] = TORCH_LEVELS[level]
    os.environ["MKL_ENABLE_INSTRUCTIONS"] = "AVX512" if level == "avx512" else "AVX2"
    argv = [each for each in sys.argv if each != "--level" and each != level]
    os.execv(sys.executable, [sys.executable, *argv])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a seventh of the shapes, and no file")
    parser.add_argument("--level", choices=tuple(TORCH_LEVELS), help="of a lesser processor")
    args = parser.parse_args()
    if args.level:
        _at_level(args.level)
    level = os.environ.get("DELTALENS_CPU_LEVEL")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # rates that others have measured are not looked at
        _run("plan", level, quick=args.quick)


def _run(suite: str, level: str | None, *, quick: bool) -> None:
    torch.manual_seed(0)
    print(measure("cpu"), cpu_level())
    rows: list[Row] = []
    for case in grid(7 if quick else 1):
        rows.append(measure_case(case))
        if len(rows) == 1:
            print(*rows[0], sep="\t")
        print(*rows[-1].values(), sep="\t", flush=True)
        if not quick:
            write_rows(suite, rows, level or "")
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
