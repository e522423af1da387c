"""Batches of pairs through the model: each pair's rows at every site, as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget, run_batches
from deltalens.lm.forward import Loss
from deltalens.lm.gradients.providers import BatchGradients, Provider, SiteBatch
from deltalens.lm.hooks import frozen, without_graph
from deltalens.lm.pairs import Pair, pair_label
from deltalens.lm.rows import PaddingSide, TokenRow, pad_rows
from deltalens.lm.sites import Site
from deltalens.lm.tokenise import EncodedPair
from deltalens.storage.in_order import Arrival


@dataclass(frozen=True)
class PairRows:
    """One pair's rows: float32 tensors [T, d_model] on the CPU, T the prompt's counted tokens.

    ``acts`` are the site's activations; ``grad_positive`` and ``grad_negative`` the gradients of
    the completions' log-losses ``loss_positive`` and ``loss_negative``.
    """

    acts: Tensor
    grad_positive: Tensor
    grad_negative: Tensor
    pair: Pair
    loss_positive: float
    loss_negative: float


@dataclass(frozen=True)
class _Row:
    """A completion's acts and grads [T, d_model] at every site; no acts of a negative one."""

    acts: list[Tensor]
    grads: list[Tensor]
    loss: float


@dataclass(frozen=True)
class PairRunner:
    """Runs a batch of rows."""

    model: Any
    sites: Sequence[Site]
    provider: Provider
    loss: Loss
    padding_side: PaddingSide

    def __call__(self, rows: Sequence[Sequence[TokenRow]], numbers: list[int]) -> list[_Row]:
        """rows: for each site the same rows, with the tokens that are counted there."""
        with frozen(self.model), without_graph():
            batches = (
                pad_rows([of_site[number] for number in numbers], numbers, side=self.padding_side)
                for of_site in rows
            )
            at = list(map(SiteBatch, self.sites, batches))
            found = self.provider(self.model, at, self.loss)
            losses = found[0].losses.tolist()
            # One site's at a time, so that not all are there twice.
            parts = [_parts(one, found.pop(0), numbers) for one in at]
            advance(sum(rows[0][number].length for number in numbers))
            return [
                _Row([acts for acts, _ in of_row], [grads for _, grads in of_row], loss)
                for of_row, loss in zip(zip(*parts, strict=True), losses, strict=True)
            ]


def _parts(
    at: SiteBatch, found: BatchGradients, numbers: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Acts and grads of each row, in memory of their own; a pair's acts are its positive row's."""
    sizes = at.batch.counted.sum(dim=1).tolist()
    each = zip(found.acts.split(sizes), found.grads.split(sizes), numbers, strict=True)
    return [
        (acts[:0].clone() if number % 2 else acts.clone(), grads.clone())
        for acts, grads, number in each
    ]


@dataclass(frozen=True)
class Captured:
    """What comes with a pair's tensors: the pair, and its completions' log-losses."""

    pair: Pair
    losses: tuple[float, float]


def pair_arrivals(
    run: PairRunner, encoded: Sequence[Sequence[EncodedPair]], first: int, budget: TokenBudget
) -> Iterator[Arrival[Captured]]:
    """The pairs as soon as both completions have run; tensors as :func:`pair_rows` takes them.

    encoded: for each site the same pairs, with the tokens that are counted there; ``first`` is the
    number of the first in errors.
    """
    pairs = encoded[0]
    # Row 2i is pair i's positive completion and row 2i + 1 its negative one.
    rows = [[row for item in of_site for row in item.rows] for of_site in encoded]
    halves: dict[int, _Row] = {}
    batches = run_batches(
        [(2 * index, 2 * index + 1) for index in range(len(pairs))],
        [row.length for row in rows[0]],
        lambda numbers: run(rows, numbers),
        budget,
        lambda row: _row_label(pairs, first, row),
    )
    for number, result in batches:
        _check_row(result, _row_label(pairs, first, number), run.sites)
        other = halves.pop(number ^ 1, None)
        if other is None:
            halves[number] = result
            continue
        positive, negative = (other, result) if number % 2 else (result, other)
        of_sites = zip(positive.acts, positive.grads, negative.grads, strict=True)
        about = Captured(pairs[number // 2].pair, (positive.loss, negative.loss))
        yield Arrival(number // 2, [tensor for site in of_sites for tensor in site], about)


def pair_rows(arrival: Arrival[Captured]) -> list[PairRows]:
    """Of acts and both completions' grads, one site after the other."""
    positive, negative = arrival.note.losses
    each = iter(arrival.tensors)
    return [
        PairRows(acts, up, down, arrival.note.pair, positive, negative)
        for acts, up, down in zip(each, each, each, strict=True)
    ]


def _row_label(pairs: Sequence[EncodedPair], first: int, row: int) -> str:
    index, side = divmod(row, 2)
    pair = pairs[index].pair
    return f"{pair_label(pair, first + index)}: {('positive', 'negative')[side]}"


def _check_row(row: _Row, label: str, sites: Sequence[Site]) -> None:
    for site, acts, grads in zip(sites, row.acts, row.grads, strict=True):
        values = {"activations": acts, "loss": torch.tensor(row.loss), "gradients": grads}
        for name, value in values.items():
            _check_finite(value, label, name, site)
        if not grads.any():
            raise InputError(
                f"{label}: the gradient at {site.name} is zero everywhere; load the model on one "
                "device and check that blocks above the site use its output"
            )


def _check_finite(value: Tensor, label: str, name: str, site: Site) -> None:
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        raise InputError(
            f"{label}: {bad} of {value.numel()} values of the {name} at {site.name} are NaN "
            "or infinite; check the model's weights, or load it in bfloat16 or float32"
        )
