"""Generating many rows at once under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from deltalens.lm.batching import TokenBudget, attempt, single_row_error
from deltalens.lm.model.caches import cache_name
from deltalens.lm.model.independence import probe_ids
from deltalens.lm.sampling.job import Job
from deltalens.lm.sampling.plain import generate_plainly
from deltalens.lm.sampling.pool import SlotPool
from deltalens.lm.sampling.prefix_queue import PrefixQueue
from deltalens.lm.sampling.trial import NEW, check_generated, reads_like_slots
from deltalens.lm.sites import text_config

PREFIX_SHARE = 1 / 4  # of the budget, for prefixes whose rows have not all started
SLACK = 16  # columns, at least, between two moves of the cache
_TRIAL_BUDGET = TokenBudget(4096)
_served: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def generate(job: Job, budget: TokenBudget) -> Iterator[tuple[int, list[int]]]:
    """(row, its new tokens) as rows end; between two of them the model is as it was found.

    When memory runs out, rows that have not ended start again under half the budget, with the
    same random numbers. Raises :class:`InputError` for a row that does not fit by itself.
    """
    if uses_slots(job.model):
        yield from _in_slots(job, budget)
    else:
        yield from generate_plainly(job, budget)


def uses_slots(model: Any) -> bool:
    """Whether the slot pool serves the model, rather than the model's own ``generate``.

    Its cache has to fit, and in a trial, once for each model, the pool has to read prompts of two
    lengths as plain passes do. Raises :class:`InputError` where neither way does.
    """
    if model not in _served:
        _served[model] = fits_slots(model) and reads_like_slots(model) and _runs(model)
        if not _served[model]:
            short, _, _ = probe_ids(model)
            ((_, tokens),) = generate_plainly(_trial(model, [short]), _TRIAL_BUDGET)
            check_generated(model, short, tokens)
    return _served[model]


def _runs(model: Any) -> bool:
    try:
        return len(list(_in_slots(_trial(model, probe_ids(model)[:2]), _TRIAL_BUDGET))) == 2
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False


def _trial(model: Any, prompts: Sequence[list[int]]) -> Job:
    return Job(model, prompts, range(len(prompts)), 0, NEW, 0.0, frozenset(), None)


def _in_slots(job: Job, budget: TokenBudget) -> Iterator[tuple[int, list[int]]]:
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
