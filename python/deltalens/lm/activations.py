"""Residual rows of token sequences at sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.hooks import frozen, input_device, without_graph
from deltalens.lm.model.independence import check_readable
from deltalens.lm.points.replacing import replacing
from deltalens.lm.progress import Progress
from deltalens.lm.rows import RowBatch, TokenRow, pad_rows
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.tokenise import check_context, check_ids
from deltalens.storage.in_order import Arrival, in_order

_WINDOW = 256  # sequences sorted by length together

Label = Callable[[int], str]
Reduce = Callable[[Tensor], Tensor]


class _SitesReached(Exception):
    """Ends a forward pass at the last of the sites: what lies above is not needed."""


def activations(
    model: Any,
    sequences: Iterable[list[int]],
    *,
    site: int | str | Site,
    batch_tokens: int = BATCH_TOKENS,
    label: Label = "sequence {}".format,
    progress: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """(sequence number from 0, its rows at ``site`` [tokens, d_model]), in the order given.

    Rows are float32 on the CPU, one for every token, a BOS included. ``sequences`` is read as far
    as needed, blocks above the site do not run, and no gradients are kept. Raises
    :class:`InputError`, naming the sequence by its ``label``, when it is empty, does not fit the
    model, or gives NaN or infinite activations.
    """
    stream = activations_at(
        model,
        sequences,
        [resolve_site(model, site)],
        batch_tokens=batch_tokens,
        label=label,
        progress=progress,
    )
    return ((number, rows[0]) for number, rows in stream)


def activations_at(
    model: Any,
    sequences: Iterable[list[int]],
    sites: Sequence[Site],
    *,
    reduce: Reduce = lambda rows: rows,
    batch_tokens: int = BATCH_TOKENS,
    label: Label = "sequence {}".format,
    progress: bool = False,
) -> Iterator[tuple[int, list[Tensor]]]:
    """As :func:`activations`, at several sites in one pass; each sequence has a tensor for each.

    ``reduce`` takes a site's rows to what is wanted of them, before any are put by.
    """
    check_readable(model)
    read = _Reader(model, sites, reduce, label)
    return _stream(read, iter(sequences), TokenBudget(batch_tokens), progress)


class _Reader:
    def __init__(self, model: Any, sites: Sequence[Site], reduce: Reduce, label: Label) -> None:
        self.model, self.sites = model, sites
        self._reduce, self.label = reduce, label

    def __call__(self, rows: Sequence[TokenRow], numbers: list[int]) -> list[list[Tensor]]:
        """Of each row, a tensor for each site."""
        seen: dict[int, list[Tensor]] = {}
        batch = pad_rows([rows[number] for number in numbers], numbers)
        sizes = batch.counted.sum(dim=1).tolist()
        batch = batch.to(input_device(self.model))
        with frozen(self.model), without_graph(), ExitStack() as stack, suppress(_SitesReached):
            for number, site in enumerate(self.sites):
                at_site = partial(self._see, seen, number, batch, sizes)
                stack.enter_context(replacing(site, at_site))
            self.model(**batch.model_inputs(), use_cache=False)
        advance(sum(sizes))
        by_site = [seen[number] for number in range(len(self.sites))]
        return [list(tensors) for tensors in zip(*by_site, strict=True)]

    def _see(
        self,
        seen: dict[int, list[Tensor]],
        number: int,
        batch: RowBatch,
        sizes: list[int],
        hidden: Tensor,
    ) -> Tensor:
        rows = hidden[batch.counted.to(hidden.device)].float().cpu()
        seen[number] = [self._reduce(one.clone()) for one in rows.split(sizes)]
        if len(seen) == len(self.sites):
            raise _SitesReached
        return hidden


def _stream(
    read: _Reader, sequences: Iterator[list[int]], budget: TokenBudget, progress: bool
) -> Iterator[tuple[int, list[Tensor]]]:
    start = 0
    with Progress(progress, "sequences", None) as bar:
        while window := list(islice(sequences, _WINDOW)):
            for found in in_order(_window(read, window, start, budget)):
                bar.advance()
                yield start + found.index, found.tensors
            start += len(window)


def _window(
    read: _Reader, window: list[list[int]], start: int, budget: TokenBudget
) -> Iterator[Arrival[None]]:
    for index, ids in enumerate(window):
        _check(read.model, ids, read.label(start + index))
    rows = [TokenRow(ids, [], [True] * len(ids)) for ids in window]
    found = run_batches(
        [[index] for index in range(len(rows))],
        [len(ids) for ids in window],
        lambda numbers: read(rows, numbers),
        budget,
        lambda row: read.label(start + row),
    )
    for index, tensors in found:
        for site, tensor in zip(read.sites, tensors, strict=True):
            _check_finite(tensor, read.label(start + index), site)
        yield Arrival(index, tensors, None)


def _check(model: Any, ids: list[int], label: str) -> None:
    if not ids:
        raise InputError(f"{label} has no tokens; leave it out")
    check_ids(model, ids, label)
    check_context(model, len(ids), label)


def _check_finite(rows: Tensor, label: str, site: Site) -> None:
    if not torch.isfinite(rows).all():
        raise InputError(
            f"{label}: activations at {site.name} are NaN or infinite; check the model's weights, "
            "or load it in bfloat16 or float32"
        )
