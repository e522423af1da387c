"""Which row of the table is added to each token of a batch of vLLM's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

KEY = "deltalens"  # of a request's extra_args


class Marked(NamedTuple):
    """What a request carries: its row in the table ``table``, from position ``first`` on.

    Row 0 is zero, and the same in every table.
    """

    table: int
    row: int
    first: int


def marked(extra_args: Mapping[str, Any] | None, table: int) -> Marked:
    """A request's mark; :class:`RuntimeError` where it has none, or of another table than the one
    that is there, so that no request goes unsteered or is steered with something else."""
    try:
        found = Marked(*map(int, (extra_args or {})[KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError("a request does not say how it is to be steered") from error
    if found.row and found.table != table:
        raise RuntimeError(f"a request is steered by table {found.table}, and {table} is there")
    return found


def token_rows(
    marks: Sequence[Marked], computed: npt.NDArray[Any], counts: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Each token's row, [tokens], of requests with ``counts`` tokens in a batch after ``computed``
    ones before it.

    A token's position says everything, so it makes no difference how a prompt is cut into batches,
    or that a request which had to go is read again with what it had generated.
    """
    if not len(marks) == len(computed) == len(counts):
        raise RuntimeError(f"{len(marks)} requests, {len(computed)} lengths, {len(counts)} counts")
    ends = np.cumsum(counts, dtype=np.int64)
    tokens = int(ends[-1]) if len(ends) else 0
    position = np.arange(tokens) + np.repeat(computed - (ends - counts), counts)
    rows = np.repeat(np.array([mark.row for mark in marks], dtype=np.int64), counts)
    first = np.repeat(np.array([mark.first for mark in marks], dtype=np.int64), counts)
    return np.where(position >= first, rows, 0)
