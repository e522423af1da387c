"""The mean activations of sites over a body of text, streamed in fp64."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from deltalens.cost.dry_run import begun
from deltalens.errors import InputError
from deltalens.lm import Sinks, Site, find_bos
from deltalens.lm.activations import activations_at
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_name
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS, Sieve, SiftedRows
from deltalens.lm.sites import text_config
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt
from deltalens.pairs.texts import Texts, reading_work
from deltalens.sae import as_sae
from deltalens.study.activation.latent_means import LatentSums, encoder_at
from deltalens.study.baseline import Baseline

log = logging.getLogger(__name__)

CONTEXT = 1024


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

    Raises :class:`InputError` when no token is left to average, and for what does not fit the
    model.
    """
    asked = Asked.of(site)
    places = resolve_sites(model, asked.names)
    saes = [None] * len(places) if sae is None else asked.each(sae, "SAE")
    sums = [_SiteMean(place, one, sinks) for place, one in zip(places, saes, strict=True)]
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
    windows = partial(
        _Windows,
        texts,
        tokenizer,
        find_bos(model, tokenizer),
        include_bos,
        max_tokens,
        _context(model, context),
        template_options(chat_template_kwargs, tokenizer),
    )
    stream = windows()
    read = partial(activations_at, model, sites=places, batch_tokens=batch_tokens)
    with begun(log, reading_work(texts, windows, max_tokens), lambda: read(windows())):
        for number, rows in read(stream, progress=progress):
            head = stream.heads.pop(number)
            for one, of_site in zip(sums, rows, strict=True):
                one.put(of_site, head, include_bos)
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
    return asked.answer([one.result(provenance, include_bos) for one in sums])


class _SiteMean:
    """Adds up what is counted at one site."""

    def __init__(self, site: Site, sae: Any, sinks: Sinks | None) -> None:
        self._site, self._sae = site, sae
        self._sieve = Sieve(sinks)
        self._latents = None if sae is None else LatentSums(encoder_at(sae, site))
        self._total = torch.zeros(site.d_model, dtype=torch.float64)
        self._tokens = 0

    def put(self, rows: Tensor, head: int, include_bos: bool) -> None:
        """A window's rows, of which the first ``head`` are BOS."""
        self._add(self._sieve.put(head, rows), include_bos)

    def _add(self, sifted: Iterable[SiftedRows], include_bos: bool) -> None:
        for head, rows, kept in sifted:
            kept[:head] = include_bos
            counted = rows[kept]
            self._total += counted.double().sum(0)
            self._tokens += len(counted)
            if self._latents is not None:
                self._latents.add(counted)

    def result(self, provenance: dict[str, Any], include_bos: bool) -> Baseline:
        self._add(self._sieve.rest(), include_bos)
        if not self._tokens:
            raise InputError(
                "the texts hold no token to average; give texts with more than their first token"
            )
        mean = Baseline(
            self._total / self._tokens,
            self._tokens,
            self._site.name,
            {**provenance, "sinks": self._sieve.left_out.as_dict()},
            median_norm=self._sieve.median,
        )
        if self._latents is None:
            return mean
        latent_mean = self._latents.result().mean
        return replace(mean, latent_mean=latent_mean, sae=as_sae(self._sae).fingerprint)


@dataclass
class _Windows:
    """Token windows of ``texts``; what was read so far is counted and hashed on the way."""

    texts: Iterable[Prompt]
    tokenizer: Any
    bos: int | None
    include_bos: bool
    max_tokens: int | None
    context: int
    template: dict[str, Any]
    counted: int = 0
    windows: int = 0
    heads: dict[int, int] = field(default_factory=dict)  # BOS tokens at the front of a window
    digest: Any = field(default_factory=hashlib.sha256)

    def __iter__(self) -> Iterator[list[int]]:
        for number, text in enumerate(self.texts, start=1):
            if not text:
                continue
            for head, body in self._split(text, f"text {number}"):
                room = self._room() - (len(head) if self.include_bos else 0)
                if room < 1:
                    return
                yield self._record(head, body[:room])

    def _split(self, text: Prompt, name: str) -> Iterator[tuple[list[int], list[int]]]:
        ids = encode_prompt(
            self.tokenizer, text, bos=self.bos, name=name, chat_template_kwargs=self.template
        )
        head = ids[:1] if ids[:1] == [self.bos] else []
        body, step = ids[len(head) :], self.context - len(head)
        for start in range(0, len(body), step):
            yield head, body[start : start + step]

    def _room(self) -> int:
        limit = self.max_tokens
        return self.context if limit is None else limit - self.counted

    def _record(self, head: list[int], body: list[int]) -> list[int]:
        ids = head + body
        skip = 0 if self.include_bos else len(head)
        self.heads[self.windows] = len(head)
        self.windows += 1
        self.counted += len(ids) - skip
        self.digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
        return ids


def _context(model: Any, context: int | None) -> int:
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if context is None:
        return min(limit or CONTEXT, CONTEXT)
    if context < 2 or (limit is not None and context > limit):
        raise InputError(f"context must be 2 … {limit or 'any'} tokens, got {context}")
    return context
