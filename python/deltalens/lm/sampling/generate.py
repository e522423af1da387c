"""Generating many rows at once under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget, attempt, single_row_error
from deltalens.lm.sampling.job import Job
from deltalens.lm.sampling.pool import SlotPool
from deltalens.lm.sampling.prefix_queue import PrefixQueue

PREFIX_SHARE = 1 / 4  # of the budget, for prefixes whose rows have not all started
SLACK = 16  # columns, at least, between two moves of the cache


def generate(job: Job, budget: TokenBudget) -> Iterator[tuple[int, list[int]]]:
    """(row, its new tokens) as rows end; between two of them the model is as it was found.

    When memory runs out, rows that have not ended start again under half the budget, with the
    same random numbers. Raises :class:`InputError` for a row that does not fit by itself.
    """
    _check_family(job)
    for wave in job.waves():
        rest = dict.fromkeys(wave)
        while rest:
            for row, tokens in _while_memory_lasts(job, list(rest), budget):
                del rest[row]
                yield row, tokens


def _while_memory_lasts(
    job: Job, rows: Sequence[int], budget: TokenBudget
) -> Iterator[tuple[int, list[int]]]:
    longest = job.length(rows[0])
    capacity = longest + max(SLACK, longest // 4)
    prefix_tokens = int(budget.tokens * PREFIX_SHARE)
    slots = max(1, min(len(rows), (budget.tokens - prefix_tokens) // capacity))
    pool = SlotPool(job, PrefixQueue(job, rows, prefix_tokens, slots), slots, capacity)
    while pool.busy:
        fits = attempt(pool.advance)
        finished, pool.finished = pool.finished, []
        yield from finished
        if fits is None:
            if slots == 1:
                raise single_row_error(f"prompt {rows[0]}", longest)
            budget.back_off(slots * capacity)
            return


def _check_family(job: Job) -> None:
    if getattr(job.model, "_is_stateful", False):
        raise InputError(
            f"{type(job.model).__name__} keeps a recurrent state; sampling works with models "
            "that keep keys and values only"
        )
