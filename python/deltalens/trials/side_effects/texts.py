"""Neutral texts as tokens: so many texts, of so many tokens each, and no more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from deltalens.errors import InputError
from deltalens.lm import find_bos
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.tokenise import check_context, check_ids
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt

COUNT, TOKENS = 32, 128


@dataclass(frozen=True)
class Neutral:
    """Texts that have nothing to do with the behaviour: of the first ``count`` the first ``tokens``
    tokens, a BOS counted. Texts of a single token have nothing to predict and are left out.

    ``texts`` is :func:`~deltalens.read_texts` of a file, or strings, chats and token-id lists.
    """

    texts: Iterable[Prompt]
    count: int = COUNT
    tokens: int = TOKENS

    def __post_init__(self) -> None:
        if self.count < 1 or self.tokens < 2:
            raise InputError(
                f"neutral text is at least one text of two tokens, got {self.count} of "
                f"{self.tokens}"
            )


@dataclass(frozen=True)
class NeutralTexts:
    """The token ids of every text."""

    ids: list[list[int]]

    @classmethod
    def of(
        cls, neutral: Neutral, model: Any, tokenizer: Any, template: ChatOptions
    ) -> NeutralTexts:
        """Those that a model is to read; :class:`InputError` where there are none, or where they do
        not fit it."""
        found = list(_encoded(neutral, model, tokenizer, template))
        if not found:
            raise InputError("the neutral texts hold nothing to predict; give texts of some words")
        return cls(found)

    @property
    def fingerprint(self) -> str:
        """Hash of the token ids."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()[:32]

    @property
    def tokens(self) -> int:
        """All that are read."""
        return sum(map(len, self.ids))


def _encoded(
    neutral: Neutral, model: Any, tokenizer: Any, template: ChatOptions
) -> Iterator[list[int]]:
    bos, kept = find_bos(model, tokenizer), 0
    for number, text in enumerate(neutral.texts, start=1):
        if kept == neutral.count:
            return
        if not text:
            continue
        name = f"neutral text {number}"
        ids = encode_prompt(tokenizer, text, bos=bos, name=name, chat_template_kwargs=template)[
            : neutral.tokens
        ]
        if len(ids) < 2:
            continue
        check_ids(model, ids, name)
        check_context(model, len(ids), name)
        kept += 1
        yield ids
