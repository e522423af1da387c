"""Generating with the model's own cache, for models that keep more than keys and values.

A recurrent state has read its padding, so only rows whose prompts are of one length share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.lm.batching import TokenBudget, run_batches
from deltalens.lm.hooks import frozen, inference, input_device
from deltalens.lm.model.caches import NAMES
from deltalens.lm.points.edits import editing
from deltalens.lm.sampling.alone import logits_alone
from deltalens.lm.sampling.job import Job
from deltalens.lm.targets.head import head_input


def generate_plainly(job: Job, budget: TokenBudget) -> Iterator[tuple[int, list[int]]]:
    """(row, its new tokens), rows with prompts of one length together as far as the budget goes."""
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(job.prompts):
        by_length.setdefault(len(prompt), []).append(row)
    for rows in by_length.values():
        lengths = [job.length(row) for row in rows]
        run = partial(_completions, job, rows)
        label = partial(_label, rows)
        for place, tokens in run_batches(
            [[i] for i in range(len(rows))], lengths, run, budget, label
        ):
            yield rows[place], tokens


def _label(rows: Sequence[int], place: int) -> str:
    return f"prompt {rows[place]}"


def _completions(job: Job, rows: Sequence[int], places: list[int]) -> list[list[int]]:
    batch = _Batch(job, [rows[place] for place in places])
    last = head_input(job.model, lambda hidden: hidden[:, -1:])
    with frozen(job.model), inference(job.model), last:
        cached = _has_general_cache(job.model, batch.prompts)
        with _undecided(job.model), batch.steered():
            job.model.generate(
                batch.prompts,
                attention_mask=torch.ones_like(batch.prompts),
                max_new_tokens=job.max_new_tokens,
                use_cache=cached,
                logits_processor=[batch.choose],
                stopping_criteria=[batch.ended],
            )
        batch.skip()
        return batch.completions()


def _has_general_cache(model: Any, prompts: Tensor) -> bool:
    """Whether a pass returns the cache that all families share; without it all is read anew.

    Those of single families, which transformers 4 has, lose what a prompt of one token leaves.
    """
    from transformers import DynamicCache

    output = model(input_ids=prompts[:1, :1], use_cache=True)
    return any(type(getattr(output, name, None)) is DynamicCache for name in NAMES)


@contextmanager
def _undecided(model: Any) -> Iterator[None]:
    """Within the context the model's generation configuration has no part in what is generated."""
    from transformers import GenerationConfig

    configured = model.generation_config
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    try:
        yield
    finally:
        model.generation_config = configured


class _Batch:
    """Rows whose next tokens are chosen here, in the place of what generating would choose."""

    def __init__(self, job: Job, rows: Sequence[int]) -> None:
        self._job, self._rows = job, rows
        self.prompts = torch.tensor(
            [job.prompts[row] for row in rows], device=input_device(job.model)
        )
        self._tokens: list[list[int]] = [[] for _ in rows]
        self._passes = 0
        self._doubtful: set[int] = set()

    def choose(self, ids: Tensor, logits: Tensor) -> Tensor:
        """``logits`` [rows, vocabulary] with each row's choice as the only one possible."""
        steps = np.full(len(ids), ids.shape[1] - self.prompts.shape[1])
        choice = self._job.choose(logits, self._rows, steps)
        self._doubtful.update(choice.doubtful.nonzero()[:, 0].tolist())
        for row, token in zip(self._tokens, choice.tokens.tolist(), strict=True):
            row.append(token)
        advance(len(self._rows))
        return torch.full_like(logits, -torch.inf).scatter(1, choice.tokens.unsqueeze(1), 0.0)

    def ended(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Whether generating may end, for every row the same: when no row goes on."""
        stops = self._job.stops
        over = all(not stops.isdisjoint(row) for row in self._tokens)
        return torch.full((len(ids),), over, device=ids.device)

    def skip(self) -> None:
        """Count what need not be generated, since every row has ended."""
        advance(0, skipped=len(self._rows) * self._job.max_new_tokens - sum(map(len, self._tokens)))

    def completions(self) -> list[list[int]]:
        """Each row's tokens before its first stop; to be called when generating has ended.

        A row in which rounding could have decided a token is read again by itself, without a cache.
        """
        return [
            self._before_stop(self._read_alone(place) if place in self._doubtful else tokens)
            for place, tokens in enumerate(self._tokens)
        ]

    def _before_stop(self, tokens: list[int]) -> list[int]:
        first = (place for place, token in enumerate(tokens) if token in self._job.stops)
        return tokens[: next(first, len(tokens))]

    def steered(self) -> AbstractContextManager[None]:
        """Within the context the model is steered as the job says."""
        steered = self._job.steered
        if steered is None:
            return nullcontext()
        return editing(steered.site, steered.edits, steered.of(self._rows), self._start)

    def _start(self, hidden: Tensor) -> int:
        """The first position to steer in a forward pass over ``hidden`` [rows, seq, d_model]."""
        self._passes += 1
        steered = self._job.steered
        continued = self._passes > 1 and hidden.shape[1] == 1
        return 0 if continued or (steered and steered.prompt) else self.prompts.shape[1]

    def _read_alone(self, place: int) -> list[int]:
        row = self._rows[place]
        tokens: list[int] = []
        for step in range(self._job.max_new_tokens):
            logits = logits_alone(self._job, row, tokens)
            tokens.append(int(self._job.choose(logits, [row], np.array([step])).tokens))
            if tokens[-1] in self._job.stops:
                break
        return tokens
