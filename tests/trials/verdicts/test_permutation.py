"""Permutation p-values against every relabeling, counted one by one."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from deltalens.trials.verdicts.permutation import RELABELINGS, permutation_p


def every_relabeling(suspects: list[int], controls: list[int]) -> Fraction:
    """In whole numbers."""
    pooled = suspects + controls
    sums = [sum(chosen) for chosen in combinations(pooled, len(suspects))]
    return Fraction(sum(total >= sum(suspects) for total in sums), len(sums))


def shares(counts: list[int]) -> torch.Tensor:
    return torch.tensor(counts, dtype=torch.float64) / 7


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 2, 4])
def test_few_latents_are_relabeled_in_every_way(seed: int, size: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 8, (12,), generator=draw).tolist()  # many ties
    expected = every_relabeling(counts[:size], counts[size:])
    found = permutation_p(shares(counts[:size]), shares(counts[size:]))
    assert found == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_many_latents_are_relabeled_at_random(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 30, (18,), generator=draw).tolist()
    counts[:6] = sorted(counts, reverse=True)[2:8] if seed == 2 else counts[:6]
    assert math.comb(18, 6) > RELABELINGS + 1
    expected = float(every_relabeling(counts[:6], counts[6:]))
    found = permutation_p(shares(counts[:6]), shares(counts[6:]))
    error = math.sqrt(max(expected, 1e-4) * (1 - expected) / RELABELINGS)
    assert abs(found - expected) < 5 * error + 1 / RELABELINGS
    assert found == permutation_p(shares(counts[:6]), shares(counts[6:]))


def test_the_smallest_p_is_one_relabeling() -> None:
    far, near = torch.arange(100.0, 110.0).double(), torch.arange(30.0).double()
    assert permutation_p(far, near) == 1 / (RELABELINGS + 1)
    assert permutation_p(near[:1], far) == 1.0
