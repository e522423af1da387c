"""A transformers model in this process as the chat model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from deltalens.errors import InputError
from deltalens.judge.chat import ChatReply, ChatRequest, Usage
from deltalens.lm import Pair, TokenRow, encode_pair, find_bos
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.head import head_input
from deltalens.lm.hooks import frozen, input_device
from deltalens.lm.rows import pad_rows
from deltalens.lm.sampling.api import sample_stream
from deltalens.lm.tokenise import check_context, check_ids

_Numbered = tuple[int, list[int], ChatRequest]


class LocalChat:
    """Answers with ``model`` through its tokenizer's chat template, in batches.

    ``name`` identifies the weights. Raises :class:`InputError`, naming the request, for what does
    not fit the model's context.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        seed: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.name = name
        self.usage = Usage()
        self._model = model
        self._tokenizer = tokenizer
        self._seed = seed
        self._batch_tokens = batch_tokens

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """Replies as batches end, requests of one kind together."""
        numbered = [
            (number, self._ids(request, number), request) for number, request in enumerate(requests)
        ]
        for _, group in groupby(sorted(numbered, key=_kind), key=_kind):
            rows = list(group)
            answer = self._probabilities if rows[0][2].top_logprobs else self._texts
            for index, reply, tokens in answer(rows):
                number, ids, _ = rows[index]
                self.usage.add(len(ids), tokens)
                yield number, reply

    def _ids(self, request: ChatRequest, number: int) -> list[int]:
        label = f"request {number} to {self.name}"
        pair = Pair(prompt=request.messages, positive=[0], negative=[1], id=label)
        bos = find_bos(self._model, self._tokenizer)
        ids = encode_pair(self._tokenizer, pair, bos_token_id=bos).prompt_ids
        check_ids(self._model, ids, label)
        new = request.max_tokens
        check_context(self._model, len(ids) + new, f"{label}: {len(ids)} + {new} new")
        return ids

    def _texts(self, rows: list[_Numbered]) -> Iterator[tuple[int, ChatReply, int]]:
        request = rows[0][2]
        found = sample_stream(
            self._model,
            self._tokenizer,
            [ids for _, ids, _ in rows],
            max_new_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=self._seed,
            batch_tokens=self._batch_tokens,
        )
        for index, ids in found:
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            yield index, ChatReply(text.strip()), len(ids)

    def _probabilities(self, rows: list[_Numbered]) -> Iterator[tuple[int, ChatReply, int]]:
        lengths = [len(ids) for _, ids, _ in rows]
        budget = TokenBudget(self._batch_tokens)
        groups = [[index] for index in range(len(rows))]
        count = rows[0][2].top_logprobs

        def run(indices: list[int]) -> list[list[tuple[str, float]]]:
            return self._top([rows[index][1] for index in indices], count)

        for index, top in run_batches(groups, lengths, run, budget, lambda at: f"request {at}"):
            yield index, ChatReply(top[0][0].strip(), top), 1

    def _top(self, prompts: list[list[int]], count: int) -> list[list[tuple[str, float]]]:
        """(text, log-probability) of each prompt's ``count`` most probable next tokens."""
        rows = [TokenRow(ids, [], [True] * len(ids)) for ids in prompts]
        batch = pad_rows(rows, range(len(rows)), side="left").to(input_device(self._model))
        last = head_input(self._model, lambda hidden: hidden[:, -1:])
        with frozen(self._model), torch.no_grad(), last:
            logits = self._model(**batch.model_inputs(), use_cache=False).logits[:, -1]
        if logits.isnan().any():
            raise InputError(f"the logits of {self.name} are NaN; check its weights")
        found = logits.double().log_softmax(-1).topk(min(count, logits.shape[-1]))
        return [
            [(self._tokenizer.decode([token]), value) for token, value in zip(*row, strict=True)]
            for row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]


def _kind(row: _Numbered) -> tuple[int, float, int]:
    request = row[2]
    return request.max_tokens, request.temperature, request.top_logprobs
