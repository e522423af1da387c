"""Estimates with intervals, against formulas, another library and simulation."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from deltalens.trials.side_effects.estimate import ratio, share
from deltalens.trials.verdicts.student import t_quantile


def test_units_of_one_size_are_a_plain_mean() -> None:
    values = [1.0, 4.0, 2.5, 3.0]
    half = 3.182446305284263 * stdev(values) / 2  # t(0.975, 3)
    found = ratio(values, [1] * 4)
    assert found.value == fmean(values)
    assert found.interval == pytest.approx((fmean(values) - half, fmean(values) + half))
    scaled = ratio([7 * value for value in values], [7] * 4)
    assert scaled.value == pytest.approx(found.value)
    assert scaled.interval == pytest.approx(found.interval)


def test_units_of_other_sizes_count_by_them() -> None:
    totals, sizes = [10.0, 1.0, 6.0], [5, 1, 2]
    found = ratio(totals, sizes)
    assert found.value == pytest.approx(17 / 8)
    left = [x - 17 / 8 * n for x, n in zip(totals, sizes, strict=True)]
    error = (1.5 * sum(one**2 for one in left)) ** 0.5 / 8
    low, high = found.interval or (0, 0)
    assert high - low == pytest.approx(2 * t_quantile(0.95, 2) * error)


@pytest.mark.parametrize("totals", [[3.0], [2.0, 2.0, 2.0]])
def test_nothing_is_told_of_one_unit_or_of_equal_ones(totals: list[float]) -> None:
    assert ratio(totals, [4] * len(totals)).interval is None


def test_a_share_stays_within_0_and_1() -> None:
    low, high = share([0, 0, 5], [10, 10, 10]).interval or (1, 0)
    assert low == 0 < high < 1
    assert (share([10, 10, 3], [10, 10, 10]).interval or (0, 0))[1] == 1


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Texts of different lengths, whose tokens go together."""
    draw, held, tried = random.Random(0), 0, 2000
    for _ in range(tried):
        sizes = [draw.randrange(20, 64) for _ in range(32)]
        totals = [n * draw.gauss(3, 0.8) + draw.gauss(0, n**0.5) for n in sizes]
        low, high = ratio(totals, sizes).interval or (0, 0)
        held += low < 3 < high
    assert 0.93 < held / tried < 0.97
