"""Texts as windows of tokens that a model reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deltalens.errors import InputError
from deltalens.lm.sites import text_config
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt
from deltalens.study.activation.pieces.cut import Row

CONTEXT = 1024


@dataclass
class Windows:
    """Token windows of ``texts``, whose first token that counts follows the BOS; what was read so
    far is counted and hashed on the way."""

    texts: Iterable[Prompt]
    tokenizer: Any
    bos: int | None
    include_bos: bool
    max_tokens: int | None
    context: int
    template: dict[str, Any]
    counted: int = 0
    windows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def __iter__(self) -> Iterator[Row]:
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

    def _record(self, head: list[int], body: list[int]) -> Row:
        ids = head + body
        skip = 0 if self.include_bos else len(head)
        self.windows += 1
        self.counted += len(ids) - skip
        self.digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
        return Row(ids, len(head))


def window_length(model: Any, context: int | None) -> int:
    """``context`` tokens, checked, or what the model has room for, at most :data:`CONTEXT`."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if context is None:
        return min(limit or CONTEXT, CONTEXT)
    if context < 2 or (limit is not None and context > limit):
        raise InputError(f"context must be 2 … {limit or 'any'} tokens, got {context}")
    return context
