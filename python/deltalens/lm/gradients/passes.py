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
from deltalens.lm.gradients.pair_rows import Captured, site_tensors
from deltalens.lm.gradients.providers import BatchGradients, Provider, SiteBatch
from deltalens.lm.hooks import frozen, without_graph
from deltalens.lm.pairs import pair_label
from deltalens.lm.rows import PaddingSide, TokenRow, pad_rows
from deltalens.lm.sites import Site
from deltalens.lm.text.encoded import EncodedPair
from deltalens.storage.in_order import Arrival


@dataclass(frozen=True)
class PairRow(TokenRow):
    """One of a pair's two rows; the activations of its first ``known`` counted tokens are the
    other's too, and not kept."""

    known: int = 0


@dataclass(frozen=True)
class SideRows:
    """A completion's acts, from the first that are not known, and grads at every site."""

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

    def __call__(self, rows: Sequence[Sequence[PairRow]], numbers: list[int]) -> list[SideRows]:
        """rows: for each site the same rows, with the tokens that are counted there."""
        with frozen(self.model), without_graph():
            chosen = [[of_site[number] for number in numbers] for of_site in rows]
            batches = (pad_rows(one, numbers, side=self.padding_side) for one in chosen)
            at = list(map(SiteBatch, self.sites, batches))
            found = self.provider(self.model, at, self.loss)
            losses = found[0].losses.tolist()
            # One site's at a time, so that not all are there twice.
            parts = [
                _parts(one, found.pop(0), of_site) for one, of_site in zip(at, chosen, strict=True)
            ]
            advance(sum(row.length for row in chosen[0]))
            return [
                SideRows([acts for acts, _ in of_row], [grads for _, grads in of_row], loss)
                for of_row, loss in zip(zip(*parts, strict=True), losses, strict=True)
            ]


def _parts(
    at: SiteBatch, found: BatchGradients, rows: Sequence[PairRow]
) -> list[tuple[Tensor, Tensor]]:
    """Acts that are not known and grads of each row, in memory of their own."""
    sizes = at.batch.counted.sum(dim=1).tolist()
    each = zip(found.acts.split(sizes), found.grads.split(sizes), rows, strict=True)
    return [(acts[row.known :].clone(), grads.clone()) for acts, grads, row in each]


def pair_arrivals(
    run: PairRunner, encoded: Sequence[Sequence[EncodedPair]], first: int, budget: TokenBudget
) -> Iterator[Arrival[Captured]]:
    """The pairs as soon as both completions have run; tensors as
    :func:`~deltalens.lm.gradients.pair_rows.pair_rows` takes them.

    encoded: for each site the same pairs, with the tokens that are counted there; ``first`` is the
    number of the first in errors.
    """
    pairs = encoded[0]
    # Row 2i is pair i's positive completion and row 2i + 1 its negative one.
    rows = [[row for item in of_site for row in _both_rows(item)] for of_site in encoded]
    halves: dict[int, SideRows] = {}
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
        index = number // 2
        own = tuple(of_site[index].own_counted for of_site in encoded)
        about = Captured(pairs[index].pair, (positive.loss, negative.loss), own)
        sides = zip(positive.acts, positive.grads, negative.acts, negative.grads, strict=True)
        tensors = [
            tensor
            for of_site, counts in zip(sides, own, strict=True)
            for tensor in site_tensors(*of_site, counts)
        ]
        yield Arrival(index, tensors, about)


def _both_rows(item: EncodedPair) -> tuple[PairRow, PairRow]:
    positive, negative = item.rows
    return PairRow(**vars(positive)), PairRow(**vars(negative), known=sum(item.counted))


def _row_label(pairs: Sequence[EncodedPair], first: int, row: int) -> str:
    index, side = divmod(row, 2)
    pair = pairs[index].pair
    return f"{pair_label(pair, first + index)}: {('positive', 'negative')[side]}"


def _check_row(row: SideRows, label: str, sites: Sequence[Site]) -> None:
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
