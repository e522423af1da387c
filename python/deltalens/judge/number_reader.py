"""How probable each whole number is as a model's reply, from its own logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.judge.chat import ChatReply
from deltalens.judge.numerals import Number, Numerals, whole_numbers
from deltalens.lm.sampling.continuations import Continuations


class NumberReader:
    """Reads ``model``, which ``name`` identifies; the tokenizer's numerals are found once."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._name = name
        self._numerals: Numerals | None = None

    def read(self, prompts: Sequence[list[int]], cached_tokens: int) -> list[ChatReply]:
        """A reply to each prompt: its numbers, and as text the most probable one or other token.

        ``cached_tokens`` of keys and values are held at once beside those of the prompts.
        """
        continuations = Continuations(self._model, prompts)
        logits = continuations.first()
        numerals = self._numerals_of(logits.shape[-1])
        longest = max(map(len, prompts))

        def after(places: Sequence[int], added: Sequence[Sequence[int]]) -> Tensor:
            count = max(1, cached_tokens // (longest + len(added[0])))
            parts = [
                self._probabilities(
                    continuations.after(places[at : at + count], added[at : at + count]), numerals
                )
                for at in range(0, len(places), count)
            ]
            return torch.cat(parts)

        numbers = whole_numbers(numerals, self._probabilities(logits, numerals), after)
        best = zip(logits.argmax(-1).tolist(), numbers, strict=True)
        return [ChatReply(self._text(token, found, numerals), found) for token, found in best]

    def _numerals_of(self, vocabulary: int) -> Numerals:
        if self._numerals is None:
            self._numerals = Numerals(self._tokenizer, vocabulary)
        return self._numerals

    def _probabilities(self, logits: Tensor, numerals: Numerals) -> Tensor:
        """Of the numerals' tokens, [rows, columns] float64 from logits [rows, vocabulary]."""
        if logits.isnan().any():
            raise InputError(f"the logits of {self._name} are NaN; check its weights")
        wide = logits.double()
        chosen = wide[:, numerals.ids.to(wide.device)]
        return (chosen - wide.logsumexp(-1, keepdim=True)).exp()

    def _text(self, token: int, numbers: list[Number], numerals: Numerals) -> str:
        if token in numerals.tokens and numbers:
            return str(max(numbers, key=lambda number: number[1])[0])
        text: str = self._tokenizer.decode([token])
        return text.strip()
