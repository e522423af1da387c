"""Sums of float32 against fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from deltalens.examples.exact_sums import GROUPS, grouped_sums, total

ROWS = 7


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values from the least float32 to nearly the largest, ten of each magnitude."""
    draw = np.random.default_rng(seed)
    exponents = draw.integers(-149, 127, count)
    values = (draw.uniform(1, 2, count) * 2.0**exponents).astype(np.float32)
    return draw.integers(0, ROWS, count), np.maximum(values, np.float32(2**-149))


def test_a_sum_is_the_float_nearest_to_the_true_one() -> None:
    rows, values = made(3000)
    found = grouped_sums(rows, values, ROWS)
    assert found.shape == (ROWS, GROUPS)
    for row in range(ROWS):
        true = sum(map(Fraction, values[rows == row].tolist()))
        assert total(found[row]) == float(true)


def test_parts_add_up_in_any_order() -> None:
    rows, values = made(2000, seed=1)
    whole = grouped_sums(rows, values, ROWS)
    order = np.random.default_rng(2).permutation(len(values))
    parts = [grouped_sums(rows[at], values[at], ROWS) for at in np.array_split(order, 11)]
    assert np.array_equal(sum(parts[::-1]), whole)


@pytest.mark.parametrize("value", [2.0**-149, 2.0**-126, 1.0, 3.4028235e38])
def test_many_of_one_value(value: float) -> None:
    values = np.full(100_000, value, dtype=np.float32)
    found = grouped_sums(np.zeros(len(values), dtype=np.int64), values, 1)
    assert total(found[0]) == 100_000 * float(np.float32(value))


def test_nothing_is_zero() -> None:
    none = grouped_sums(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 2)
    assert total(none[1]) == 0.0
