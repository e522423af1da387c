"""One shape: every contender checked once, then timed in rounds that run all of them in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from contenders import Contender, Inputs
from machine import RateMeter, Rates, interleaved
from memory import peak_bytes
from results import Row

Report = Callable[[list[Row]], None]


def measure_shape(
    benchmark: Any,
    meter: RateMeter,
    inputs: Inputs,
    contenders: Mapping[str, Contender],
    *,
    baseline: str,
    rounds: int,
) -> list[Row]:
    """A row per contender: its median, and how many times faster than ``baseline`` it is.

    The first call of each is not timed: it warms up, shows the peak of memory, and must agree with
    the others in the top-k.
    """
    peaks = _warm_up(inputs, contenders)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    samples: list[Rates] = []
    works = {name: partial(c.work, inputs) for name, c in contenders.items()}

    def one_round() -> None:
        samples.append(meter.measure())
        for name, taken in interleaved(works, 1).items():
            times[name] += taken

    benchmark.pedantic(one_round, rounds=rounds if benchmark.enabled else 1)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    rates = Rates.median(samples)

    def row(name: str, taken: float) -> Row:
        dtype = contenders[name].dtype or inputs.W_dec.dtype
        rate = contenders[name].flop(inputs) / taken
        return {
            "contender": name,
            "form": contenders[name].form,
            "tokens": len(inputs.acts),
            "n_latents": len(inputs.W_dec),
            "d_model": inputs.W_dec.shape[1],
            "k": inputs.k,
            "dtype": str(dtype).removeprefix("torch."),
            "rounds": len(times[name]),
            "seconds": f"{taken:.4f}",
            "baseline": baseline,
            "speedup": f"{medians[baseline] / taken:.2f}",
            "gflops": f"{rate / 1e9:.0f}",
            "roof_gflops": f"{rates.roof(dtype) / 1e9:.0f}",
            "roof_fraction": f"{rate / rates.roof(dtype):.2f}",
            "matmul_gflops": f"{rates.matmul / 1e9:.0f}",
            "copy_gbytes": f"{rates.copy / 1e9:.0f}",
            "peak_mib": f"{peaks[name] / 2**20:.0f}",
        }

    return [row(name, taken) for name, taken in medians.items()]


def _warm_up(inputs: Inputs, contenders: Mapping[str, Contender]) -> dict[str, int]:
    found: dict[str, set[int]] = {}
    peaks: dict[str, int] = {}
    for name, contender in contenders.items():
        results: list[Tensor | None] = []
        peaks[name] = peak_bytes(
            lambda work=contender.work, results=results: results.append(work(inputs))
        )
        if results[0] is not None:
            found[name] = set(results[0].tolist())
    reference, *others = found.items()
    for name, latents in others:
        # Plain code carries fp32 rounding, so near-ties at the last places may differ.
        shared = len(latents & reference[1])
        assert shared >= 0.99 * inputs.k, f"{name} and {reference[0]} share {shared} latents"
    return peaks
