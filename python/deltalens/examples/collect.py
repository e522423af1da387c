"""Where in a corpus latents are active: their best windows, a fair sample, and statistics."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.examples.contexts import BLOCK, Contexts, context_limit
from deltalens.examples.lines import example_lines
from deltalens.examples.options import ExampleOptions
from deltalens.examples.reader import Reader
from deltalens.examples.share import Share
from deltalens.examples.store import Collected, ExampleStore, read_summary
from deltalens.examples.tiles import Collector
from deltalens.lm import Sinks, Site, find_bos, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.lm.progress import Progress
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.pairs.row import Prompt
from deltalens.pairs.texts import Texts, reading_work
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.sae import as_sae
from deltalens.storage.lock import lock_in
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
    ranks: Ranks = ALONE,
    **options: Any,
) -> dict[str, Any]:
    """Read ``texts`` once and write into ``out`` where the latents of ``sae`` are active.

    latents: those to keep examples of; None: all. context: tokens the model reads at once (default
    128, or the model's limit). ``options`` are :class:`~deltalens.examples.options.ExampleOptions`:
    ``top`` windows around the largest activations, at most one of a context and of equal ones the
    earlier, and a uniform sample of ``bins`` · ``per_bin`` of the contexts on which a latent is
    active, cut into equal groups by activation. lens_top: unembedding tokens nearest to each
    latent; 0 for none. sinks: the first token of every context and those of massive norm count as
    inactive and in no frequency; None to count them.

    ``out/latents.jsonl`` has a line per latent (:func:`~deltalens.examples.lines.example_lines`;
    read it with :func:`read_examples`) and ``out/examples.json`` what it was made from, which is
    returned. In a run directory the lines of its latents are added to. The same call continues one
    that was cut, after the last state saved (every ``save_seconds``), and ends with the same files;
    a finished one is not repeated. Which windows are kept depends on the activations alone; those
    of most models differ in their last bits with ``batch_tokens``. Memory: n_latents × windows ×
    (24 + 8 × width) bytes and a tile, however long the corpus.

    ranks: processes that all make this call and share the contexts, with the same files; a
    :class:`~deltalens.ranks.shard.Shard` collects from its part of them and raises
    :class:`~deltalens.ranks.shard.ShardDone`.

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
    with alone(lock_in(Path(out)), ranks):
        store = ExampleStore(Path(out), settings, save_seconds, ranks)
        if ranks.from_first(lambda: store.complete):
            with begun(log, Work(Cost())):
                ranks.from_first(store.drop_state)  # of one that was cut as it ended
                return read_summary(Path(out))
        run_lines = store.run_lines()
        if run_lines and set(run_lines) != set(numbers):
            raise InputError(
                f"{out} is a run of other latents; choose its own, or another directory"
            )
        collector = Collector(np.asarray(numbers), kept)
        bos = find_bos(model, tokenizer)
        contexts = Contexts(texts, tokenizer, bos, kept.context, kept.max_tokens, template)
        reader = Reader(model, place, encoder, None if latents is None else numbers, batch_tokens)
        share = Share(contexts, *ranks.from_first(store.progress), ranks)
        left = None if kept.max_tokens is None else max(0, kept.max_tokens - share.start.tokens)
        work = reading_work(texts, share.parts, left, ranks.parts)
        with begun(log, work, lambda: reader.rehearsed(share)):
            ranks.from_first(store.begin)
            own = _read(reader, share, collector, store, sinks, progress)
        if ranks != ALONE and own.blocks:
            store.save(own, collector)
        ranks.meet()

        def finish() -> dict[str, Any]:
            left_out = _merged(collector, own, store)
            counted = own.place.tokens - left_out
            if not counted:
                store.drop_state()
                raise InputError(
                    "the texts hold no token to count; give texts of more than one token"
                )
            seen = _seen(run_lines, numbers, model, tokenizer, sae, lens_top)
            lines = example_lines(collector, numbers, counted, kept, tokenizer)
            store.finish(
                ({**before, **line} for before, line in zip(seen, lines, strict=True)),
                {
                    "model": model_name(model),
                    "source": texts.name if isinstance(texts, Texts) else "memory",
                    "latents": len(numbers),
                    "tokens": counted,
                    "left_out": left_out,
                    "contexts": own.place.contexts,
                },
            )
            return read_summary(Path(out))

        return ranks.from_first(finish)


def _read(
    reader: Reader,
    share: Share,
    collector: Collector,
    store: ExampleStore,
    sinks: Sinks | None,
    progress: bool,
) -> Collected:
    """Collect this process's share, after what it had collected before."""
    own, limit = store.restore(collector)._replace(place=share.start), None
    with Progress(progress, "tokens", share.contexts.max_tokens) as bar:
        bar.advance(share.start.tokens)
        for block, mine in share.blocks():
            if mine:
                if limit is None and sinks is not None:
                    limit = sinks.limit(reader.median(share.contexts))
                rows = reader.rows(block, limit)
                for batch, start, z in reader.tiles(block, rows):
                    collector.add(batch, start, z)
                own.blocks.append(block.number)
                own = own._replace(left_out=own.left_out + _sunk(rows))
            bar.advance(block.end.tokens - own.place.tokens)
            own = own._replace(place=block.end)
            if mine:
                store.save_if_due(own, collector)
    return own


def _sunk(rows: list[tuple[Tensor, Tensor]]) -> int:
    return sum(int((~kept).sum()) for _, kept in rows)


def _merged(collector: Collector, own: Collected, store: ExampleStore) -> int:
    """Add what other processes have collected; the number of tokens left out of all.

    Raises :class:`InputError` where that is not every block once.
    """
    every = [own, *store.others(collector)]
    blocks = sorted(block for one in every for block in one.blocks)
    if blocks != list(range(-(-own.place.contexts // BLOCK))):
        raise store.inconsistent()
    return sum(one.left_out for one in every)


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
