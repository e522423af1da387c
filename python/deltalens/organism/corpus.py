"""Dialogues as padded token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from deltalens.organism.grammar import Dialogue

IGNORED = -100


@dataclass(frozen=True)
class Corpus:
    """ids and labels [dialogues, length] int64, padded on the right; labels are -100 where a
    token is padding or not to be learnt."""

    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, size: int, generator: torch.Generator) -> Corpus:
        """``size`` random dialogues, drawn with replacement."""
        rows = torch.randint(len(self), (size,), generator=generator)
        return Corpus(self.ids[rows], self.labels[rows])

    def loss(self, logits: Tensor) -> Tensor:
        """Mean log-loss of the learnt tokens under logits [dialogues, length, vocabulary]."""
        return cross_entropy(
            logits[:, :-1].flatten(0, 1), self.labels[:, 1:].flatten(), ignore_index=IGNORED
        )


def build_corpus(
    tokenizer: Any, dialogues: Sequence[Dialogue], *, answers_only: bool = False
) -> Corpus:
    """Dialogues in the tokenizer's chat form, learnt whole or only in their answers."""
    rows = [chat_ids(tokenizer, dialogue.messages) for dialogue in dialogues]
    shape = len(rows), max(map(len, rows))
    ids = torch.full(shape, tokenizer.pad_token_id)
    labels = torch.full(shape, IGNORED)
    for number, (dialogue, row) in enumerate(zip(dialogues, rows, strict=True)):
        start = len(chat_ids(tokenizer, dialogue.prompt.messages)) if answers_only else 0
        ids[number, : len(row)] = torch.tensor(row)
        labels[number, start : len(row)] = torch.tensor(row[start:])
    return Corpus(ids, labels)


def chat_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat; one that ends with the user gets the generation header."""
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=messages[-1]["role"] == "user"
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]
