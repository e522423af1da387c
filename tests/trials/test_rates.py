"""Rates and intervals against values from the literature and from counting."""

from __future__ import annotations

import math

import pytest

import deltalens
from deltalens.judge import Outcome
from deltalens.trials.rates import Rate, Tally


def test_wilson_interval_solves_its_defining_equation():
    """The ends are the p at which |count/n − p| is z standard errors of p."""
    rate = Rate(17, 60)
    for end in rate.interval:
        z = (rate.value - end) / math.sqrt(end * (1 - end) / rate.n)
        assert abs(z) == pytest.approx(1.959963984540054, rel=1e-9)


def test_wilson_interval_of_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263.
    low, high = Rate(81, 263).interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_interval_at_the_ends():
    assert Rate(0, 20).interval[0] == 0
    assert Rate(20, 20).interval[1] == 1
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert math.isnan(Rate(0, 0).value)


FIRST: list[Outcome] = ["shown", "absent", "incoherent", "evasive", "unparsable", "shown"]


def test_only_what_can_be_graded_enters_the_rate():
    tally = Tally.count(FIRST)
    assert (tally.behaviour.count, tally.behaviour.n) == (2, 3)
    assert (tally.incoherence.count, tally.incoherence.n) == (1, 6)
    assert (tally.loose_incoherence.count, tally.loose_incoherence.n) == (2, 6)


def test_sampling_again_changes_the_rate_and_does_not_hide_incoherence():
    last: list[Outcome] = ["shown", "absent", "shown", "absent", "unparsable", "shown"]
    tally = Tally.count(FIRST, last)
    assert (tally.behaviour.count, tally.behaviour.n) == (3, 5)
    assert (tally.incoherence.count, tally.incoherence.n) == (1, 6)
    assert (tally.loose_incoherence.count, tally.unparsable) == (2, 1)


def test_impossible_counts_are_refused():
    with pytest.raises(deltalens.InputError, match="0 ≤ count ≤ n"):
        Rate(3, 2)
    with pytest.raises(deltalens.InputError, match="do not match"):
        Tally.count(FIRST, FIRST[:2])
