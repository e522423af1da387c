"""A corpus as contexts that the model reads, from any place in it on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from deltalens.errors import InputError
from deltalens.lm.sites import text_config
from deltalens.lm.text.chat import ChatOptions
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt

BLOCK = 256
"""Contexts that are read and encoded together, so that a cut between blocks changes nothing."""


class Place(NamedTuple):
    """How far the corpus was read: before context ``part`` of text number ``text`` (from 1)."""

    text: int = 1
    part: int = 0
    contexts: int = 0
    tokens: int = 0


class Context(NamedTuple):
    """``body`` are tokens ``first … `` of a text, ``head`` the BOS before them, if any."""

    text: int
    part: int
    first: int
    head: list[int]
    body: list[int]


class Block(NamedTuple):
    """At most :data:`BLOCK` contexts in a row, fewer at the very end, and the place after them."""

    number: int
    contexts: list[Context]
    end: Place

    @property
    def first(self) -> int:
        """The number of its first context."""
        return self.number * BLOCK


class Batch(NamedTuple):
    """The counted tokens of whole contexts in a row; for each: int32 or int64 [tokens]."""

    ids: np.ndarray
    context: np.ndarray
    """Numbers of the contexts, from 0 in the corpus."""
    text: np.ndarray
    position: np.ndarray
    """Places in the text's tokens, a BOS not counted."""


@dataclass(frozen=True)
class Contexts:
    """Texts cut into contexts of at most ``length`` tokens, each with the BOS its text begins with.

    Texts are not joined. A BOS is neither counted nor part of any window.
    """

    texts: Iterable[Prompt]
    tokenizer: Any
    bos: int | None
    length: int
    max_tokens: int | None
    template: ChatOptions

    def blocks(self, start: Place) -> Iterator[Block]:
        """All blocks from ``start`` on, which is where one begins or the corpus ends."""
        stream, place = self._stream(start), start
        while block := list(islice(stream, BLOCK)):
            number, last = place.contexts // BLOCK, block[-1]
            tokens = sum(len(context.body) for context in block)
            contexts = place.contexts + len(block)
            place = Place(last.text, last.part + 1, contexts, place.tokens + tokens)
            yield Block(number, block, place)

    def _stream(self, start: Place) -> Iterator[Context]:
        tokens = start.tokens
        for number, text in enumerate(self.texts, start=1):
            if number < start.text or not text:
                continue
            skipped = start.part if number == start.text else 0
            for context in islice(self._cut(text, number), skipped, None):
                room = len(context.body) if self.max_tokens is None else self.max_tokens - tokens
                if room < 1:
                    return
                tokens += min(room, len(context.body))
                yield context._replace(body=context.body[:room])

    def _cut(self, text: Prompt, number: int) -> Iterator[Context]:
        ids = encode_prompt(
            self.tokenizer,
            text,
            bos=self.bos,
            name=f"text {number}",
            chat_template_kwargs=self.template,
        )
        head = ids[:1] if ids[:1] == [self.bos] else []
        body, step = ids[len(head) :], self.length - len(head)
        for part, first in enumerate(range(0, len(body), step)):
            yield Context(number, part, first, head, body[first : first + step])


def batch_of(contexts: list[Context], number: int) -> Batch:
    """``contexts`` as one batch; the first of them is context ``number`` of the corpus."""
    lengths = [len(context.body) for context in contexts]

    def repeated(values: Iterable[int]) -> np.ndarray:
        return np.repeat(np.fromiter(values, np.int64, len(contexts)), lengths)

    starts = np.cumsum([0, *lengths[:-1]])
    offset = np.arange(sum(lengths)) - repeated(starts)
    return Batch(
        ids=np.concatenate([np.asarray(context.body, dtype=np.int32) for context in contexts]),
        context=repeated(range(number, number + len(contexts))),
        text=repeated(context.text for context in contexts),
        position=repeated(context.first for context in contexts) + offset,
    )


def context_limit(model: Any, wanted: int | None, default: int) -> int:
    """``wanted`` tokens, checked, or ``default`` where the model has room for it."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if wanted is None:
        return min(limit or default, default)
    if wanted < 2 or (limit is not None and wanted > limit):
        raise InputError(f"context must be 2 … {limit or 'any'} tokens, got {wanted}")
    return wanted
