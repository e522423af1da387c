from __future__ import annotations

import random
from collections.abc import Collection

import numpy as np
import pytest
import torch

from deltalens.examples.contexts import Context, batch_of
from deltalens.examples.lines import example_lines
from deltalens.examples.options import ExampleOptions
from deltalens.examples.tiles import Collector, histogram_edges
from helpers.examples_oracle import (
    ContextActs,
    expected,
)

N_LATENTS = 9
KEPT = {"top": 5, "bins": 2, "per_bin": 3, "before": 2, "after": 4, "seed": 11}


def make_contexts(count: int, seed: int = 0) -> list[ContextActs]:
    """Activations of few different values, so that most windows tie with others."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    contexts = []
    for number in range(count):
        length = draw.randrange(1, 12)
        z = torch.randint(-6, 4, (length, N_LATENTS), generator=generator).clamp(min=0).float()
        z[:, 4] = 0
        ids = [draw.randrange(40) for _ in range(length)]
        contexts.append(ContextActs(number // 3 + 1, 20 * (number % 3), ids, z))
    return contexts


def collect(
    contexts: list[ContextActs],
    portion: int,
    tile: int,
    mine: Collection[int] | None = None,
    **changes: int,
) -> tuple[Collector, ExampleOptions]:
    """mine: the numbers of the contexts that are collected, one at a time; None: all."""
    options = ExampleOptions(**{**KEPT, **changes})
    collector = Collector(np.arange(N_LATENTS), options)
    portion = portion if mine is None else 1
    for first in range(0, len(contexts), portion):
        if mine is not None and first not in mine:
            continue
        part = contexts[first : first + portion]
        batch = batch_of([Context(c.text, 0, c.first, [], c.ids) for c in part], first)
        z = torch.cat([context.z for context in part])
        for start in range(0, N_LATENTS, tile):
            collector.add(batch, start, z[:, start : start + tile])
    return collector, options


def lines(contexts: list[ContextActs], portion: int, tile: int, **changes: int) -> list[dict]:
    collector, options = collect(contexts, portion, tile, **changes)
    tokens = sum(len(context.ids) for context in contexts)
    return [
        line["examples"]
        for line in example_lines(collector, range(N_LATENTS), tokens, options, None)
    ]


def without_texts(examples: dict) -> dict:
    def bare(windows: list[dict]) -> list[dict]:
        return [{k: v for k, v in window.items() if k != "tokens"} for window in windows]

    groups = [{**group, "windows": bare(group["windows"])} for group in examples["quantiles"]]
    return {**examples, "top": bare(examples["top"]), "quantiles": groups}


@pytest.mark.parametrize("count", [1, 4, 90])
@pytest.mark.parametrize(("portion", "tile"), [(1, 9), (7, 9), (90, 4), (90, 1)])
def test_exactly_the_brute_force_in_any_portions_and_tiles(count, portion, tile):
    contexts = make_contexts(count)
    for latent, examples in enumerate(lines(contexts, portion, tile)):
        assert without_texts(examples) == expected(contexts, latent, **KEPT)


@pytest.mark.parametrize("changes", [{"per_bin": 0}, {"before": 0, "after": 0}, {"top": 200}])
def test_extreme_options(changes):
    contexts = make_contexts(60)
    for latent, examples in enumerate(lines(contexts, 13, 4, **changes)):
        assert without_texts(examples) == expected(contexts, latent, **{**KEPT, **changes})


def test_tiny_and_huge_activations_are_in_the_outermost_bins():
    z = torch.tensor([1e-30, 2.0**-16, 1.5, 1.49, 1e30]).repeat(N_LATENTS, 1).T.contiguous()
    contexts = [ContextActs(1, 0, [7] * 5, z)]
    found = lines(contexts, 1, 9)[0]["histogram"]
    edges = histogram_edges()
    assert found == [[edges[0], 2], [1.0, 1], [1.5, 1], [edges[-1], 1]]
    assert found == expected(contexts, 0, **KEPT)["histogram"]


def test_the_state_restores_everything():
    contexts = make_contexts(60)
    whole, _ = collect(contexts, 60, 9)
    half, options = collect(contexts[:30], 30, 9)
    continued = Collector(np.arange(N_LATENTS), options)
    continued.restore({name: array.copy() for name, array in half.state().items()})
    part = contexts[30:]
    batch = batch_of([Context(c.text, 0, c.first, [], c.ids) for c in part], 30)
    continued.add(batch, 0, torch.cat([context.z for context in part]))
    tokens = sum(len(context.ids) for context in contexts)
    found, wanted = (
        list(example_lines(collector, range(N_LATENTS), tokens, options, None))
        for collector in (continued, whole)
    )
    assert found == wanted


@pytest.mark.parametrize("changes", [{}, {"per_bin": 0}, {"top": 200}])
@pytest.mark.parametrize("tile", [9, 4])
def test_what_others_collected_is_merged_in_any_order(changes, tile):
    """Of contexts dealt out in turn, a few latents at a time."""
    contexts = make_contexts(61)
    wanted = lines(contexts, 61, 9, **changes)
    parts = [collect(contexts, 7, 9, mine=range(number, 61, 3), **changes) for number in (2, 0, 1)]
    merged, options = parts[0]
    for other, _ in parts[1:]:
        state = other.state()
        for start in range(0, N_LATENTS, tile):
            rows = {name: array[start : start + tile] for name, array in state.items()}
            merged.merge(start, rows)
    tokens = sum(len(context.ids) for context in contexts)
    found = example_lines(merged, range(N_LATENTS), tokens, options, None)
    assert [line["examples"] for line in found] == wanted


def test_every_context_is_equally_likely_to_be_sampled():
    latents, contexts, sampled = 3000, 40, 8
    collector = Collector(np.arange(latents), ExampleOptions(bins=4, per_bin=2, before=0, after=0))
    batch = batch_of([Context(n + 1, 0, 0, [], [n]) for n in range(contexts)], 0)
    # activations grow with the number, which must not matter
    collector.add(batch, 0, torch.arange(1.0, contexts + 1)[:, None].expand(-1, latents))
    counts = np.bincount(collector.sample.windows.text.ravel() - 1, minlength=contexts)
    assert counts.sum() == latents * sampled
    share = sampled / contexts
    deviation = (latents * share * (1 - share)) ** 0.5
    assert np.abs(counts - latents * share).max() < 4 * deviation
    together = np.corrcoef(
        (collector.sample.windows.text[:, :, None] == np.arange(1, contexts + 1)).any(1).T
    )
    apart = together[~np.eye(contexts, dtype=bool)]
    without_replacement = -1 / (contexts - 1)
    assert np.abs(apart - without_replacement).max() < 5 / latents**0.5
