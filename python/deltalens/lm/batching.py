"""Rows in batches of similar length under a token budget that backs off when memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from deltalens.errors import InputError, Unfinished

BATCH_TOKENS = 4096

Result = TypeVar("Result")


class TokenBudget:
    """At most ``tokens`` padded tokens in a batch; smaller once memory has run out."""

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise InputError(f"batch_tokens must be at least 1, got {tokens}")
        self.tokens = tokens

    def back_off(self, used: int) -> None:
        """Halve the budget after a batch of ``used`` tokens did not fit."""
        self.tokens = max(1, min(self.tokens, used) // 2)


def run_batches(
    groups: Sequence[Sequence[int]],
    lengths: Sequence[int],
    run: Callable[[list[int]], list[Result]],
    budget: TokenBudget,
    label: Callable[[int], str],
) -> Iterator[tuple[int, Result]]:
    """Run every row once, rows of similar length together, and yield (row, its result).

    ``groups`` lists the rows; the rows of a group share a batch unless they exceed the budget by
    themselves. ``lengths[row]`` is a row's length in tokens; ``run`` takes rows and returns one
    result for each. When it runs out of memory the budget is halved and the rows are tried again;
    a single row that does not fit raises :class:`Unfinished`, naming it by ``label(row)``.
    """
    longest_first = sorted(groups, key=lambda group: -max(lengths[row] for row in group))
    waiting = deque(map(list, longest_first))
    while waiting:
        batch = _next_batch(waiting, lengths, budget.tokens)
        rows = _flat(batch)
        results = attempt(partial(run, rows))
        if results is not None:
            yield from zip(rows, results, strict=True)
            continue
        if len(rows) == 1:
            raise single_row_error(label(rows[0]), lengths[rows[0]])
        budget.back_off(_padded(rows, lengths))
        waiting.extendleft(reversed(batch))


def _next_batch(waiting: deque[list[int]], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    batch: list[list[int]] = []
    while waiting and _padded(_flat([*batch, waiting[0]]), lengths) <= tokens:
        batch.append(waiting.popleft())
    return batch or [_first_row(waiting)]


def _first_row(waiting: deque[list[int]]) -> list[int]:
    """One row of the next group, which is too large for a batch of its own."""
    group = waiting.popleft()
    if len(group) > 1:
        waiting.appendleft(group[1:])
    return group[:1]


def _flat(groups: Iterable[list[int]]) -> list[int]:
    return [row for group in groups for row in group]


def _padded(rows: Sequence[int], lengths: Sequence[int]) -> int:
    return len(rows) * max(lengths[row] for row in rows)


def attempt(work: Callable[[], Result]) -> Result | None:
    """The result, or None when memory ran out; by then what the work had made has been freed."""
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def single_row_error(label: str, tokens: int) -> Unfinished:
    """What to raise when a row does not fit into memory by itself."""
    return Unfinished(
        f"{label}: out of memory on a single row of {tokens} tokens; "
        "shorten it or use a device with more memory"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it says that memory has run out, whichever allocator does."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )
