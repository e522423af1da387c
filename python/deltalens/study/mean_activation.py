"""The mean activation of a site over a body of text, streamed in fp64."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from deltalens.errors import InputError
from deltalens.lm import Sifted, Sinks, Site, activations, find_bos, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_name
from deltalens.lm.sinks import SINKS
from deltalens.lm.sites import text_config
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt
from deltalens.pairs.texts import Texts
from deltalens.sae import as_sae
from deltalens.study.activation.latent_means import LatentSums, encoder_at
from deltalens.study.baseline import Baseline

CONTEXT = 1024


def mean_activation(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts | Iterable[Prompt],
    *,
    site: int | str | Site,
    sae: Any = None,
    sinks: Sinks | None = SINKS,
    include_bos: bool = False,
    max_tokens: int | None = None,
    context: int | None = None,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Baseline:
    """ā: the mean over all tokens of ``texts`` of the activation at ``site``.

    With an ``sae`` (of :func:`~deltalens.load_sae`, or a SAELens object), in the same pass also z̄,
    the mean of its latents.

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
    place = resolve_site(model, site)
    latents = None if sae is None else LatentSums(encoder_at(sae, place))
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
    stream = _Windows(
        texts,
        tokenizer,
        find_bos(model, tokenizer),
        include_bos,
        max_tokens,
        _context(model, context),
        template_options(chat_template_kwargs, tokenizer),
    )
    total = torch.zeros(place.d_model, dtype=torch.float64)
    sifted = Sifted(
        activations(model, stream, site=place, batch_tokens=batch_tokens, progress=progress), sinks
    )
    tokens = 0
    for number, rows, kept in sifted:
        head = stream.heads.pop(number)
        kept[:head] = include_bos
        counted = rows[kept]
        total += counted.double().sum(0)
        tokens += len(counted)
        if latents is not None:
            latents.add(counted)
    if not tokens:
        raise InputError(
            "the texts hold no token to average; give texts with more than their first token"
        )
    provenance = {
        "source": texts.name if isinstance(texts, Texts) else "memory",
        "sha256": texts.sha256 if isinstance(texts, Texts) else None,
        "tokens_sha256": stream.digest.hexdigest(),
        "windows": stream.windows,
        "include_bos": include_bos,
        "sinks": sifted.left_out.as_dict(),
        "max_tokens": max_tokens,
        "context": stream.context,
        "chat_template_kwargs": stream.template,
        "model": model_name(model),
        "transformers": version("transformers"),
    }
    mean = Baseline(total / tokens, tokens, place.name, provenance, median_norm=sifted.median)
    if latents is None:
        return mean
    return replace(mean, latent_mean=latents.result().mean, sae=as_sae(sae).fingerprint)


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
