"""Batches under a token budget."""

from __future__ import annotations

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget, run_batches

LENGTHS = [5, 9, 2, 9, 4, 1, 7]


def batches(
    groups: list[list[int]], tokens: int, limit: int = 10**9
) -> tuple[list[list[int]], dict[int, int]]:
    ran: list[list[int]] = []

    def run(rows: list[int]) -> list[int]:
        if len(rows) * max(LENGTHS[row] for row in rows) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        ran.append(rows)
        return [10 * row for row in rows]

    results = run_batches(groups, LENGTHS, run, TokenBudget(tokens), lambda row: f"row {row}")
    return ran, dict(results)


@pytest.mark.parametrize("tokens", [1, 9, 18, 20, 63, 1000])
def test_every_row_once_within_the_budget(tokens: int) -> None:
    ran, results = batches([[row] for row in range(7)], tokens)
    assert results == {row: 10 * row for row in range(7)}
    assert sorted(row for rows in ran for row in rows) == list(range(7))
    for rows in ran:
        assert len(rows) == 1 or len(rows) * max(LENGTHS[row] for row in rows) <= tokens


def test_rows_of_similar_length_share_a_batch() -> None:
    ran, _ = batches([[row] for row in range(7)], 20)
    assert [[LENGTHS[row] for row in rows] for rows in ran] == [[9, 9], [7, 5], [4, 2, 1]]


def test_groups_stay_together_unless_they_exceed_the_budget() -> None:
    groups = [[0, 1], [2, 3], [4, 5, 6]]
    assert batches(groups, 21)[0] == [[0, 1], [2, 3], [4, 5, 6]]
    assert batches(groups, 18)[0] == [[0, 1], [2, 3], [4], [5, 6]]
    assert batches(groups, 8)[0] == [[row] for row in range(7)]


@pytest.mark.parametrize("limit", [9, 10, 18, 30])
def test_out_of_memory_backs_off_to_what_fits(limit: int) -> None:
    groups = [[0, 1], [2, 3], [4, 5], [6]]
    ran, results = batches(groups, 10_000, limit)
    assert results == {row: 10 * row for row in range(7)}
    assert sorted(row for rows in ran for row in rows) == list(range(7))
    assert all(len(rows) * max(LENGTHS[row] for row in rows) <= limit for rows in ran)
    if limit == 30:  # half the first budget, which the longest pair fits: no pair is split
        assert all(any(set(group) <= set(rows) for rows in ran) for group in groups)


def test_the_smaller_budget_is_remembered() -> None:
    budget = TokenBudget(1000)
    tried: list[int] = []

    def run(rows: list[int]) -> list[None]:
        tried.append(len(rows))
        if len(rows) > 2:
            raise RuntimeError("CUDA error: out of memory")
        return [None] * len(rows)

    for _ in range(2):
        list(run_batches([[row] for row in range(7)], [4] * 7, run, budget, str))
    assert tried == [7, 3, *[1] * 7, *[1] * 7]
    assert budget.tokens == 6


def test_one_row_that_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"^row 1: out of memory on a single row of 9 tokens"):
        batches([[row] for row in range(7)], 10_000, 8)


def test_other_errors_pass() -> None:
    def run(rows: list[int]) -> list[None]:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(run_batches([[0]], [1], run, TokenBudget(5), str))


def test_a_budget_needs_a_token() -> None:
    with pytest.raises(InputError, match="batch_tokens must be at least 1, got 0"):
        TokenBudget(0)
