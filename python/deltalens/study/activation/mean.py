"""The mean activations of sites over a body of text, streamed in fp64."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

from torch import nn

from deltalens.cost.dry_run import begun
from deltalens.errors import InputError
from deltalens.lm import Sinks, Site, find_bos
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.row import Prompt
from deltalens.pairs.texts import Texts, reading_work
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.study.activation.pieces.cut import pieces
from deltalens.study.activation.pieces.read import read_piece
from deltalens.study.activation.pieces.store import PieceRoom, sums_settings
from deltalens.study.activation.pieces.sums import Summing
from deltalens.study.activation.site_mean import SiteMean, WindowSums, no_token
from deltalens.study.activation.windows import Windows, window_length
from deltalens.study.baseline import Baseline
from deltalens.study.run import Settings, site_directory

log = logging.getLogger(__name__)


@overload
def mean_activation(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Iterable[Prompt],
    *,
    site: AnySite,
    sae: Any = ...,
    sinks: Sinks | None = ...,
    include_bos: bool = ...,
    max_tokens: int | None = ...,
    context: int | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
    out: str | Path | None = ...,
    ranks: Ranks = ...,
) -> Baseline: ...


@overload
def mean_activation(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Iterable[Prompt],
    *,
    site: SeveralSites,
    sae: Sequence[Any] | Mapping[AnySite, Any] | None = ...,
    sinks: Sinks | None = ...,
    include_bos: bool = ...,
    max_tokens: int | None = ...,
    context: int | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
    out: str | Path | None = ...,
    ranks: Ranks = ...,
) -> dict[AnySite, Baseline]: ...


def mean_activation(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Iterable[Prompt],
    *,
    site: AnySite | SeveralSites,
    sae: Any = None,
    sinks: Sinks | None = SINKS,
    include_bos: bool = False,
    max_tokens: int | None = None,
    context: int | None = None,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
    out: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> Baseline | dict[AnySite, Baseline]:
    """ā: the mean over all tokens of ``texts`` of the activation at ``site``.

    With an ``sae`` (of :func:`~deltalens.load_sae`, or a SAELens object), in the same pass also z̄,
    the mean of its latents. With a list of sites, the result is a dict of baselines by site, as
    the sites were named, from one pass for all; ``sae`` then has one for each, in a list or a dict.

    texts: :func:`~deltalens.study.read_texts` of a file, or any iterable of strings, chats and
    token-id lists; it is streamed, and read no further than ``max_tokens`` tokens require. Longer
    texts are split into windows of ``context`` tokens (default: the model's own, at most 1024);
    each window of a text that starts with BOS starts with BOS, which is averaged only with
    ``include_bos``, sink or not. ``sinks``: the first token of every window and those of massive
    norm are left out, None to average them too. Sums are fp64. The provenance records source,
    hashes, model, options and how many tokens were left out.

    With ``out`` the baseline is written there (of several sites, each into a directory ``out``, as
    ``site-12.safetensors``), and meanwhile what is found of every 256 windows is kept beside it, so
    that the same call continues one that was cut. ranks: processes that all make this call with one
    ``out`` and share the windows, with the same result; a :class:`~deltalens.ranks.shard.Shard`
    does its part of them and raises :class:`~deltalens.ranks.shard.ShardDone`.

    Raises :class:`InputError` when no token is left to average, and for what does not fit the
    model.
    """
    asked = Asked.of(site)
    places = resolve_sites(model, asked.names)
    saes = [None] * len(places) if sae is None else asked.each(sae, "SAE")
    means = [SiteMean(place, one, sinks) for place, one in zip(places, saes, strict=True)]
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
    windows = partial(
        Windows,
        texts,
        tokenizer,
        find_bos(model, tokenizer),
        include_bos,
        max_tokens,
        window_length(model, context),
        template_options(chat_template_kwargs, tokenizer),
    )
    stream = windows()
    summing = Summing(
        pieces=lambda: pieces(windows()),
        read=partial(read_piece, model, places, batch_tokens),
        tallies=[partial(WindowSums, one, include_bos) for one in means],
        room=PieceRoom(
            out,
            lambda: _settings(model, means, include_bos),
            ranks,
            directory=asked.several,
        ),
        ranks=ranks,
    )
    work = reading_work(texts, summing.parts, max_tokens, ranks.parts)
    with begun(log, work, summing.rehearsed), summing.room.filling() as store:
        found = summing.over(pieces(stream), store, progress=progress)
        provenance = {
            "source": texts.name if isinstance(texts, Texts) else "memory",
            "sha256": texts.sha256 if isinstance(texts, Texts) else None,
            "tokens_sha256": stream.digest.hexdigest(),
            "windows": stream.windows,
            "include_bos": include_bos,
            "max_tokens": max_tokens,
            "context": stream.context,
            "chat_template_kwargs": stream.template,
            "model": model_name(model),
            "transformers": version("transformers"),
        }
        if found is None:
            raise no_token()
        baselines = [one.result(of, provenance) for one, of in zip(means, found, strict=True)]
        if out is not None:
            files = baseline_files(Path(out), places, asked.several)
            ranks.from_first(lambda: _save(baselines, files))
    return asked.answer(baselines)


def baseline_files(out: Path, sites: Sequence[Site], several: bool) -> list[Path]:
    """Where the sites' baselines are saved: ``out`` itself, or for several sites a file for each in
    that directory."""
    return [Path(f"{site_directory(out, site)}.safetensors") if several else out for site in sites]


def _save(baselines: Sequence[Baseline], files: Sequence[Path]) -> None:
    for baseline, file in zip(baselines, files, strict=True):
        baseline.save(file)


def _settings(model: nn.Module, means: Sequence[SiteMean], include_bos: bool) -> Settings:
    """What the sums depend on beside the tokens."""
    return sums_settings(
        [model_fingerprint(model)],
        [one.site for one in means],
        [one.sae for one in means],
        means[0].sinks,
        include_bos=include_bos,
    )
