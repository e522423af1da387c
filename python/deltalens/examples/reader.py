"""Latents of contexts, a batch and a tile at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from deltalens.examples.contexts import Batch, Block, Contexts, Place, batch_of
from deltalens.examples.share import Share
from deltalens.lm import Site, activations
from deltalens.lm.model.parts import execution_device
from deltalens.lm.sinks import no_sink, site_median
from deltalens.sae.encoder import BATCH_TOKENS as ENCODED_TOKENS
from deltalens.sae.encoder import Encoder


class Reader:
    """Reads blocks at a site; latents: those to encode, None for all."""

    def __init__(
        self,
        model: nn.Module,
        site: Site,
        encoder: Encoder,
        latents: list[int] | None,
        batch_tokens: int,
    ) -> None:
        self._model = model
        self._site = site
        self._encoder = encoder
        self._latents = latents
        self._batch_tokens = batch_tokens
        self._device = execution_device(site.module)

    def median(self, contexts: Contexts) -> float:
        """The site's median norm, of the corpus's first contexts."""
        blocks = (block.contexts for block in contexts.blocks(Place()))
        sequences = (context.head + context.body for block in blocks for context in block)
        return site_median(self._model, sequences, self._site)

    def rows(self, block: Block, limit: float | None) -> list[tuple[Tensor, Tensor]]:
        """Of each context: its counted tokens' activations, and which are no sinks."""
        sequences = [context.head + context.body for context in block.contexts]
        rows = activations(self._model, sequences, site=self._site, batch_tokens=self._batch_tokens)
        heads = [len(context.head) for context in block.contexts]
        return [(acts[heads[at] :], _no_sink(acts, limit)[heads[at] :]) for at, acts in rows]

    def tiles(
        self, block: Block, rows: list[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Batch, int, Tensor]]:
        """(batch, first latent, z [tokens, n]) of a block, whose ``rows`` are given; sinks have
        z = 0."""
        for first, last in _portions([len(acts) for acts, _ in rows]):
            batch = batch_of(block.contexts[first:last], block.first + first)
            acts = torch.cat([acts for acts, _ in rows[first:last]]).to(self._device)
            sunk = ~torch.cat([kept for _, kept in rows[first:last]]).to(self._device)
            for start, z in self._encoded(acts):
                yield batch, start, z.masked_fill(sunk[:, None], 0)

    def rehearsed(self, share: Share) -> Iterator[object]:
        """Read and encode what is to be collected, and keep nothing."""
        for block, mine in share.blocks():
            if mine:
                yield from self.tiles(block, self.rows(block, None))

    def _encoded(self, acts: Tensor) -> Iterable[tuple[int, Tensor]]:
        if self._latents is None:
            return self._encoder.encode_tiles(acts)
        return [(0, self._encoder.encode_selected(acts, self._latents))]


def _no_sink(acts: Tensor, limit: float | None) -> Tensor:
    return torch.ones(len(acts), dtype=torch.bool) if limit is None else no_sink(acts, limit)


def _portions(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of whole contexts with at most as many tokens as are encoded at once, or one."""
    first = tokens = 0
    for at, length in enumerate(lengths):
        if at > first and tokens + length > ENCODED_TOKENS:
            yield first, at
            first, tokens = at, 0
        tokens += length
    if lengths:
        yield first, len(lengths)
