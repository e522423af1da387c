"""A transformers model in this process as the chat model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from deltalens.judge.chat import ChatReply, ChatRequest, Usage
from deltalens.judge.number_reader import NumberReader
from deltalens.judge.verdict import reasons_error
from deltalens.lm import Pair, encode_pair, find_bos
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.model.independence import check_readable
from deltalens.lm.sampling.api import sample_stream
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.lm.text.reasoning import begins_reasoning, completion_reader, opening_tag
from deltalens.lm.tokenise import check_context, check_ids

CACHED_TOKENS = 16  # that take as much memory as a token of a forward pass
END_TOKENS = 16  # of a prompt, in which a tag that it opens stands

_Numbered = tuple[int, list[int], ChatRequest]


class LocalChat:
    """Answers with ``model`` through its tokenizer's chat template, in batches.

    ``name`` identifies the weights; ``chat_template_kwargs``, further arguments of the template,
    are added to it. Raises :class:`InputError`, naming the request, for what does not fit the
    model's context.
    """

    address = ""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        seed: int = 0,
        chat_template_kwargs: ChatOptions | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._template = template_options(chat_template_kwargs, tokenizer)
        self.name = (
            f"{name} {json.dumps(self._template, sort_keys=True)}" if self._template else name
        )
        self.usage = Usage()
        self._model = model
        self._tokenizer = tokenizer
        self._seed = seed
        self._batch_tokens = batch_tokens
        self._numbers = NumberReader(model, tokenizer, name)

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """Replies as batches end, requests of one kind together."""
        numbered = [
            (number, self._ids(request, number), request) for number, request in enumerate(requests)
        ]
        for _, group in groupby(sorted(numbered, key=_kind), key=_kind):
            rows = list(group)
            answer = self._scores if rows[0][2].numbers else self._texts
            for index, reply, tokens in answer(rows):
                number, ids, _ = rows[index]
                self.usage.add(len(ids), tokens)
                yield number, reply

    def _ids(self, request: ChatRequest, number: int) -> list[int]:
        label = f"request {number} to {self.name}"
        pair = Pair(prompt=request.messages, positive=[0], negative=[1], id=label)
        bos = find_bos(self._model, self._tokenizer)
        ids = encode_pair(
            self._tokenizer, pair, bos_token_id=bos, chat_template_kwargs=self._template
        ).prompt_ids
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
        text = completion_reader(self._tokenizer)
        for index, ids in found:
            opened = opening_tag(self._end(rows[index][1]))
            yield index, ChatReply(opened + text(ids).strip()), len(ids)

    def _end(self, ids: list[int]) -> str:
        end: str = self._tokenizer.decode(ids[-END_TOKENS:])
        return end

    def _scores(self, rows: list[_Numbered]) -> Iterator[tuple[int, ChatReply, int]]:
        if any(opening_tag(self._end(ids)) for _, ids, _ in rows):
            raise reasons_error(self.name)
        lengths = [len(ids) for _, ids, _ in rows]
        budget = TokenBudget(self._batch_tokens)
        groups = [[index] for index in range(len(rows))]
        check_readable(self._model, "left")

        def run(indices: list[int]) -> list[ChatReply]:
            prompts = [rows[index][1] for index in indices]
            return self._numbers.read(prompts, budget.tokens * CACHED_TOKENS)

        for index, reply in run_batches(
            groups, lengths, run, budget, lambda at: f"request {rows[at][0]}"
        ):
            if begins_reasoning(reply.text):
                raise reasons_error(self.name)
            yield index, reply, 1


def _kind(row: _Numbered) -> tuple[int, float, bool]:
    request = row[2]
    return request.max_tokens, request.temperature, request.numbers
