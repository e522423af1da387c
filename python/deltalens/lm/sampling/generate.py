"""Generating many rows at once under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deltalens.lm.batching import TokenBudget, attempt, single_row_error
from deltalens.lm.model.caches import cache_name
from deltalens.lm.sampling.job import Job
from deltalens.lm.sampling.plain import generate_plainly
from deltalens.lm.sampling.pool import SlotPool
from deltalens.lm.sampling.prefix_queue import PrefixQueue
from deltalens.lm.sites import text_config

PREFIX_SHARE = 1 / 4  # of the budget, for prefixes whose rows have not all started
SLACK = 16  # columns, at least, between two moves of the cache


def generate(job: Job, budget: TokenBudget) -> Iterator[tuple[int, list[int]]]:
    """(row, its new tokens) as rows end; between two of them the model is as it was found.

    When memory runs out, rows that have not ended start again under half the budget, with the
    same random numbers. Raises :class:`InputError` for a row that does not fit by itself.
    """
    if not fits_slots(job.model):
        yield from generate_plainly(job, budget)
        return
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


def fits_slots(model: Any) -> bool:
    """Whether all that the model keeps of a token is its keys and values, for itself or a window.

    Chunked attention is left out: its mask goes by columns, which rows in slots do not begin at 0.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    text = text_config(model)
    named = set(getattr(text, "layer_types", None) or ())
    layers = {type(layer) for layer in DynamicCache(config=text).layers}
    return (
        cache_name(model) is not None
        and not getattr(model, "_is_stateful", False)
        and named <= {"full_attention", "sliding_attention"}
        and layers <= {DynamicLayer, DynamicSlidingWindowLayer}
    )
