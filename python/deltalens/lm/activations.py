"""Residual rows of token sequences at a site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.hooks import frozen, input_device, without_graph
from deltalens.lm.model.independence import check_readable
from deltalens.lm.points.replacing import replacing
from deltalens.lm.progress import Progress
from deltalens.lm.rows import RowBatch, TokenRow, pad_rows
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.tokenise import check_context, check_ids

_WINDOW = 256  # sequences sorted by length together

Label = Callable[[int], str]


class _SiteReached(Exception):
    """Ends a forward pass at the site: what lies above is not needed."""


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
    where = resolve_site(model, site)
    check_readable(model)
    return _stream(model, where, iter(sequences), TokenBudget(batch_tokens), label, progress)


def _stream(
    model: Any,
    site: Site,
    sequences: Iterator[list[int]],
    budget: TokenBudget,
    label: Label,
    progress: bool,
) -> Iterator[tuple[int, Tensor]]:
    start = 0
    with Progress(progress, "sequences", None) as bar:
        while window := list(islice(sequences, _WINDOW)):
            for number, rows in _window(model, site, window, start, budget, label):
                bar.advance()
                yield number, rows
            start += len(window)


def _window(
    model: Any,
    site: Site,
    window: list[list[int]],
    start: int,
    budget: TokenBudget,
    label: Label,
) -> Iterator[tuple[int, Tensor]]:
    for index, ids in enumerate(window):
        _check(model, ids, label(start + index))
    rows = [TokenRow(ids, [], [True] * len(ids)) for ids in window]

    def run(numbers: list[int]) -> list[Tensor]:
        return _site_rows(model, site, pad_rows([rows[number] for number in numbers], numbers))

    groups = [[index] for index in range(len(rows))]
    lengths = [len(ids) for ids in window]
    found = dict(run_batches(groups, lengths, run, budget, lambda row: label(start + row)))
    for index in range(len(rows)):
        _check_finite(found[index], label(start + index), site)
        yield start + index, found.pop(index)


def _site_rows(model: Any, site: Site, batch: RowBatch) -> list[Tensor]:
    seen: list[Tensor] = []

    def at_site(hidden: Tensor) -> Tensor:
        seen.append(hidden[batch.counted.to(hidden.device)].float().cpu())
        raise _SiteReached

    sizes = batch.counted.sum(dim=1).tolist()
    batch = batch.to(input_device(model))
    with frozen(model), without_graph(), replacing(site, at_site), suppress(_SiteReached):
        model(**batch.model_inputs(), use_cache=False)
    with without_graph():
        return [rows.clone() for rows in seen[0].split(sizes)]


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
