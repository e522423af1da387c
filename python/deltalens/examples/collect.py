"""Where in a corpus latents are active: their best windows, a fair sample, and statistics."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.examples.contexts import (
    Batch,
    Context,
    Contexts,
    Place,
    batch_of,
    context_limit,
)
from deltalens.examples.lines import example_lines
from deltalens.examples.options import ExampleOptions
from deltalens.examples.store import ExampleStore, read_summary
from deltalens.examples.tiles import Collector
from deltalens.lm import Sinks, Site, activations, find_bos, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.lm.model.parts import execution_device
from deltalens.lm.progress import Progress
from deltalens.lm.sinks import SINKS, no_sink, site_median
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.pairs.row import Prompt
from deltalens.pairs.texts import Texts, reading_work
from deltalens.sae import as_sae
from deltalens.sae.encoder import BATCH_TOKENS as ENCODED_TOKENS
from deltalens.sae.encoder import Encoder
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.latents import latent_indices
from deltalens.study.lens import lens_if_possible

log = logging.getLogger(__name__)

CONTEXT = 128
SAVE_SECONDS = 30.0


def collect_examples(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Sequence[Prompt],
    sae: Any,
    out: str | Path,
    *,
    site: int | str | Site,
    latents: Tensor | Sequence[int] | None = None,
    context: int | None = None,
    lens_top: int = 10,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    save_seconds: float = SAVE_SECONDS,
    progress: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Read ``texts`` once and write into ``out`` where the latents of ``sae`` are active.

    latents: those to keep examples of; None: all. context: tokens the model reads at once (default
    128, or the model's limit). ``options`` are :class:`~deltalens.examples.options.
    ExampleOptions`: ``top`` windows around the largest activations, at most one of a context and
    of equal ones the earlier, and a uniform sample of ``bins`` · ``per_bin`` of the contexts on
    which a latent is active, cut into equal groups by activation. lens_top: unembedding tokens
    nearest to each latent; 0 for none. sinks: the first token of every context and those of
    massive norm count as inactive and in no frequency; None to count them.

    ``out/latents.jsonl`` has a line per latent (:func:`~deltalens.examples.lines.
    example_lines`; read it with :func:`read_examples`) and ``out/examples.json`` what it was made
    from, which is returned. In a run directory the lines of its latents are added to. The same call
    continues one that was cut, after the last state saved (every ``save_seconds``), and ends with
    the same files; a finished one is not repeated. Which windows are kept depends on the
    activations alone; those of most models differ in their last bits with ``batch_tokens``.
    Memory: n_latents × windows × (24 + 8 × width) bytes and a tile, however long the corpus.

    Raises :class:`InputError` when ``out`` holds anything else, for texts without a token, and for
    what does not fit the model.
    """
    place, sae = resolve_site(model, site), as_sae(sae)
    encoder = encoder_at(sae, place)
    numbers = _numbers(latents, encoder.n_latents)
    kept = ExampleOptions(**options, context=context_limit(model, context, CONTEXT))
    template = template_options(chat_template_kwargs, tokenizer)
    settings = _settings(
        model, tokenizer, texts, sae, place, latents, numbers, kept, lens_top, template
    )
    settings["options"]["sinks"] = None if sinks is None else sinks.times_median
    store = ExampleStore(Path(out), settings, save_seconds)
    if store.complete:
        with begun(log, Work(Cost())):
            return read_summary(Path(out))
    run_lines = store.run_lines()
    if run_lines and set(run_lines) != set(numbers):
        raise InputError(f"{out} is a run of other latents; choose its own, or another directory")
    collector = Collector(np.asarray(numbers), kept)
    bos = find_bos(model, tokenizer)
    contexts = Contexts(texts, tokenizer, bos, kept.context, kept.max_tokens, template)
    reader = _Reader(model, place, encoder, None if latents is None else numbers, batch_tokens)
    start = store.place
    left = None if kept.max_tokens is None else max(0, kept.max_tokens - start.tokens)
    with begun(
        log,
        reading_work(texts, lambda: contexts.sequences(start), left),
        lambda: reader.rehearsed(contexts, start),
    ):
        end = _read(reader, contexts, collector, store, sinks, progress)
    counted = end.tokens - end.left_out
    if not counted:
        raise InputError("the texts hold no token to count; give texts of more than one token")
    seen = _seen(run_lines, numbers, model, tokenizer, sae, lens_top)
    lines = example_lines(collector, numbers, counted, kept, tokenizer)
    store.finish(
        ({**before, **line} for before, line in zip(seen, lines, strict=True)),
        {
            "model": model_name(model),
            "source": texts.name if isinstance(texts, Texts) else "memory",
            "latents": len(numbers),
            "tokens": counted,
            "left_out": end.left_out,
            "contexts": end.contexts,
        },
    )
    return read_summary(Path(out))


class _Reader:
    """Latents of contexts, a batch and a tile at a time."""

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
        blocks = (block for block, _ in contexts.blocks(Place()))
        sequences = (context.head + context.body for block in blocks for context in block)
        return site_median(self._model, sequences, self._site)

    def rows(self, block: list[Context], limit: float | None) -> list[tuple[Tensor, Tensor]]:
        """Of each context: its counted tokens' activations, and which are no sinks."""
        sequences = [context.head + context.body for context in block]
        rows = activations(self._model, sequences, site=self._site, batch_tokens=self._batch_tokens)
        heads = [len(context.head) for context in block]
        return [(acts[heads[at] :], _no_sink(acts, limit)[heads[at] :]) for at, acts in rows]

    def tiles(
        self, block: list[Context], number: int, rows: list[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Batch, int, Tensor]]:
        """(batch, first latent, z [tokens, n]) of a block whose first context has ``number``.

        ``rows`` are the block's; sinks have z = 0.
        """
        for first, last in _portions([len(acts) for acts, _ in rows]):
            batch = batch_of(block[first:last], number + first)
            acts = torch.cat([acts for acts, _ in rows[first:last]]).to(self._device)
            sunk = ~torch.cat([kept for _, kept in rows[first:last]]).to(self._device)
            for start, z in self._encoded(acts):
                yield batch, start, z.masked_fill(sunk[:, None], 0)

    def rehearsed(self, contexts: Contexts, start: Place) -> Iterator[object]:
        """Read and encode from ``start`` on, and keep nothing."""
        for block, after in contexts.blocks(start):
            yield from self.tiles(block, after.contexts - len(block), self.rows(block, None))

    def _encoded(self, acts: Tensor) -> Iterable[tuple[int, Tensor]]:
        if self._latents is None:
            return self._encoder.encode_tiles(acts)
        return [(0, self._encoder.encode_selected(acts, self._latents))]


def _read(
    reader: _Reader,
    contexts: Contexts,
    collector: Collector,
    store: ExampleStore,
    sinks: Sinks | None,
    progress: bool,
) -> Place:
    place, saved = store.load() or (Place(), None)
    if saved is not None:
        collector.restore(saved)
    limit = None
    with Progress(progress, "tokens", contexts.max_tokens) as bar:
        bar.advance(place.tokens)
        for block, after in contexts.blocks(place):
            if limit is None and sinks is not None:
                limit = sinks.limit(reader.median(contexts))
            rows = reader.rows(block, limit)
            for batch, start, z in reader.tiles(block, place.contexts, rows):
                collector.add(batch, start, z)
            bar.advance(after.tokens - place.tokens)
            sunk = sum(int((~kept).sum()) for _, kept in rows)
            place = after._replace(left_out=place.left_out + sunk)
            store.save_if_due(place, collector.state())
    return place


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


def _numbers(latents: Tensor | Sequence[int] | None, n_latents: int) -> list[int]:
    if latents is None:
        return list(range(n_latents))
    return list(dict.fromkeys(latent_indices(latents, n_latents)))


def _seen(
    run_lines: dict[int, dict[str, Any]],
    numbers: list[int],
    model: nn.Module,
    tokenizer: Any,
    sae: Any,
    lens_top: int,
) -> Iterator[dict[str, Any]]:
    """What is known about each latent besides its examples."""
    if run_lines:
        yield from (run_lines[number] for number in numbers)
    elif not lens_top:
        yield from ({} for _ in numbers)
    else:
        seen = lens_if_possible(model, tokenizer, sae, numbers, top=lens_top)
        yield from ({"promotes": found.promotes, "suppresses": found.suppresses} for found in seen)
        yield from ({} for _ in numbers[len(seen) :])


def _settings(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Sequence[Prompt],
    sae: Any,
    site: Site,
    latents: Tensor | Sequence[int] | None,
    numbers: list[int],
    options: ExampleOptions,
    lens_top: int,
    template: dict[str, Any],
) -> dict[str, Any]:
    chosen = "all" if latents is None else _digest(numbers)
    return {
        "options": {
            "site": site.name,
            "latents": chosen,
            "lens_top": lens_top,
            "chat_template_kwargs": template,
            **options.as_dict(),
        },
        "fingerprints": {
            "model": model_fingerprint(model),
            "tokenizer": _tokenizer_fingerprint(tokenizer),
            "sae": decoder_fingerprint(sae, as_decoder(sae)),
            "texts": texts.sha256 if isinstance(texts, Texts) else _digest(list(texts)),
        },
    }


def _tokenizer_fingerprint(tokenizer: Any) -> str | None:
    if tokenizer is None:
        return None
    return _digest([sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "chat_template", "")])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:32]
