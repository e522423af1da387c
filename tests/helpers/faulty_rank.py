"""Three processes scan one decoder together, and the kernels of one of them are wrong."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deltalens.engine import CrossMoment
from deltalens.engine.problem import Problem, moment_problem
from deltalens.engine.scan import full_scores, top_latents
from deltalens.engine.topk.ranking import Ranking
from deltalens.engine.trust.guard import KernelWarning
from deltalens.ranks.processes import joined
from helpers.engine_oracle import random_case
from helpers.forked_ranks import launch

FAULTY = 1


class Wrong:
    """A scorer of which one row in ten is left out."""

    def __init__(self, right: Any) -> None:
        self.right = right

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        return self.scores_and_error(rows, rows.double().norm(dim=1)).scores

    def scores_and_error(self, rows: torch.Tensor, norms: torch.Tensor) -> Any:
        scored = self.right.scores_and_error(rows, norms)
        if len(rows) == 1000:
            scored.scores[:, 500:600] = 0.0
        return scored


def counted(work: Any) -> tuple[Any, int]:
    """What it gives, and how many scans it says were wrong."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = work()
    return result, sum(issubclass(each.category, KernelWarning) for each in said)


def work(directory: Path, _: int | None) -> None:
    """One process's part."""
    torch.set_num_threads(1)
    case = random_case(20, 24, 5 * 1000)
    moment = CrossMoment(24)
    moment.add(case.acts, case.grads, **case.arguments())
    with joined() as ranks:
        right = replace(moment_problem([moment], case.W_dec, "torch"), ranks=ranks, tile_rows=1000)
        faulty: Problem = right
        if ranks.rank == FAULTY:
            faulty = replace(right, scorer=lambda: Wrong(right.scorer()))
        found: dict[str, Any] = {"warned": {}}
        for name, problem in (("top", faulty), ("none", right)):
            (top,), warned = counted(
                lambda p=problem: top_latents(p, 20, Ranking(), normalize=False)
            )
            found[name], found["warned"][name] = top.latents.tolist(), warned
        scores, found["warned"]["full"] = counted(lambda: full_scores(faulty, normalize=False))
        found["best"] = scores[0].topk(20).indices.tolist()
        text = json.dumps(found)
        (directory / f"rank-{ranks.rank}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    launch(3, Path(sys.argv[1]), job=work)
