"""Activations of the prompts that pairs' prompts are aligned with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from deltalens.lm.activations import activations_at
from deltalens.lm.gradients.pair_rows import Captured
from deltalens.lm.pairs import pair_label
from deltalens.lm.sites import Site
from deltalens.lm.text.encoded import EncodedPair
from deltalens.storage.in_order import Arrival


def counterpart_rows(
    model: Any,
    encoded: Sequence[Sequence[EncodedPair]],
    sites: Sequence[Site],
    *,
    first: int,
    batch_tokens: int,
) -> Iterator[list[Tensor]]:
    """Of every aligned pair, at each site the activations at the counterparts of its counted tokens
    [rows, d_model], float32 on the CPU.

    encoded: for each site the same pairs; ``first`` is the number of the first in errors.
    """
    prompts = (pair.counterpart.ids for pair in encoded[0] if pair.counterpart is not None)
    stream = activations_at(
        model,
        prompts,
        sites,
        batch_tokens=batch_tokens,
        label=lambda number: (
            f"{pair_label(encoded[0][number].pair, first + number)}: negative_prompt"
        ),
    )
    for number, of_sites in stream:
        yield [
            rows[of_site[number].counterparts]
            for rows, of_site in zip(of_sites, encoded, strict=True)
        ]


def with_counterparts(
    arrivals: Iterator[Arrival[Captured]], counterparts: Sequence[Sequence[Tensor]]
) -> Iterator[Arrival[Captured]]:
    """Arrivals of aligned pairs with their counterparts' rows after each site's tensors."""
    for index, tensors, about in ((each.index, each.tensors, each.note) for each in arrivals):
        joined = [
            tensor
            for site, there in enumerate(counterparts[index])
            for tensor in (*tensors[3 * site : 3 * site + 3], there)
        ]
        yield Arrival(index, joined, about._replace(aligned=True))
