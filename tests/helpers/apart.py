"""The method for completions that are read after tokens of their own, written out naively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from helpers.tiny_study import rows_naively, run_naively


class Read(NamedTuple):
    """What one completion is read after, with a BOS in front, and the completion."""

    before: list[int]
    completion: list[int]


Sides = tuple[Read, Read]
Effects = tuple[Tensor, Tensor, Tensor, Tensor]


def sides(prompt: list[int], positive: list[int], negative: list[int], prefix: int) -> Sides:
    """Both completions of a prompt, of which ``prefix`` tokens are read before."""
    return (
        Read(prompt + positive[:prefix], positive[prefix:]),
        Read(prompt + negative[:prefix], negative[prefix:]),
    )


def effects_apart(
    model: object, pairs: Sequence[Sides], directions: Tensor, mean: Tensor
) -> Effects:
    """δ(C), δ(C′), push and presence of every pair and latent, fp64 [pairs, n_latents] each; every
    token but the first counts, for each completion by itself."""
    found = []
    for both in pairs:
        (acts, slopes), (other_acts, other_slopes) = (
            tuple(each @ directions.T for each in rows(model, one, mean)) for one in both
        )
        tokens = (len(acts) + len(other_acts)) / 2
        found.append(
            (
                -(slopes * acts).sum(0) / tokens,
                -(other_slopes * other_acts).sum(0) / tokens,
                (other_slopes.sum(0) - slopes.sum(0)) / tokens,
                (acts.sum(0) + other_acts.sum(0)) / (2 * tokens),
            )
        )
    return tuple(torch.stack(column) for column in zip(*found, strict=True))


def rows(model: object, one: Read, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Activations less ``mean``, and gradients, at every token but the first."""
    acts, grads = rows_naively(model, one.before, one.completion)
    return acts - mean, grads


def moved_losses(
    model: object, both: Sides, move: Callable[[Tensor, int], Tensor]
) -> tuple[float, float]:
    """How both losses change when every row but the first is moved: ``move(rows, side)``."""

    def change(one: Read, side: int) -> float:
        def edit(hidden: Tensor) -> Tensor:
            changed = hidden.clone()
            counted = slice(1, len(one.before))
            changed[0, counted] = move(hidden[0, counted], side)
            return changed

        with torch.no_grad():
            before = run_naively(model, one.before, one.completion, lambda hidden: hidden)
            return float(run_naively(model, one.before, one.completion, edit) - before)

    positive, negative = both
    return change(positive, 0), change(negative, 1)
