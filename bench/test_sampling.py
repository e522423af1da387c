"""Steered sampling on the organism against `model.generate`, as one would call it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from machine import interleaved
from sampling_trials import (
    LATENTS,
    NEW_TOKENS,
    PROMPTS,
    STRENGTHS,
    Trial,
    batches,
    generate,
    library,
    organism_trial,
)

ROUNDS, ALONE, FIXED = 3, 100, 1000
BASELINE = "generate, a call per condition"


def _contenders(trial: Trial) -> dict[str, Callable[[], int]]:
    rows = len(trial.prompts)
    alone = [[number] for number in range(0, rows, rows // ALONE)]
    return {
        "deltalens": partial(library, trial, "all"),
        "deltalens, generated tokens only": partial(library, trial, "generated"),
        BASELINE: partial(generate, trial, batches(rows, PROMPTS)),
        f"generate, {FIXED} rows a call": partial(generate, trial, batches(rows, FIXED)),
        "generate, a call per completion": partial(generate, trial, alone),
    }


def test_sampling(benchmark, report):
    trial = organism_trial()
    works = _contenders(trial)
    made = {name: work() for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}

    def one_round() -> None:
        for name, taken in interleaved(works, 1).items():
            times[name] += taken

    benchmark.pedantic(one_round, rounds=ROUNDS if benchmark.enabled else 1)
    rates = {name: made[name] / statistics.median(taken) for name, taken in times.items()}
    report(
        {
            "contender": name,
            "measured": made[name],
            "completions": len(trial.prompts),
            "conditions": LATENTS * len(STRENGTHS),
            "new_tokens": NEW_TOKENS,
            "rounds": len(times[name]),
            "seconds": f"{len(trial.prompts) / rate:.2f}",
            "baseline": BASELINE,
            "speedup": f"{rate / rates[BASELINE]:.2f}",
        }
        for name, rate in rates.items()
    )
