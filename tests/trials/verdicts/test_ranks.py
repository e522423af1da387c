"""Rank p-values counted by hand; Benjamini and Hochberg's own table; controls that it takes."""

from __future__ import annotations

import pytest
import torch

from deltalens.trials.verdicts.ranks import adjusted, controls_needed, rank_p

# Benjamini and Hochberg (1995), section 4.1: of these 15, four are rejected at q = 0.05.
PAPER = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
PAPER += [0.4262, 0.5719, 0.6528, 0.7590, 1.0000]


def rejected(p_values: list[float], q: float) -> set[int]:
    """The step-up procedure as published: all up to the last that is at most rank·q/m."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    fine = [n for n, at in enumerate(order, 1) if p_values[at] <= n * q / len(p_values)]
    return set(order[: max(fine, default=0)])


def test_ties_count_against_a_latent() -> None:
    suspects, controls = torch.tensor([0.3, 0.1, 0.9]), torch.tensor([0.1, 0.3, 0.3, -0.5])
    assert rank_p(suspects, controls) == pytest.approx([3 / 5, 4 / 5, 1 / 5])


def test_the_published_example() -> None:
    found = adjusted(PAPER)
    assert [p <= 0.05 for p in found] == [True] * 4 + [False] * 11
    assert found[:4] == pytest.approx([0.0015, 0.003, 0.0095, 0.035625])


@pytest.mark.parametrize("seed", range(20))
def test_adjusted_values_reject_what_the_procedure_rejects(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = (torch.randint(1, 40, (9,), generator=draw) / 40).tolist()
    found = adjusted(values)
    for q in (0.05, 0.1, 0.2, 0.5):
        assert {at for at, p in enumerate(found) if p <= q + 1e-12} == rejected(values, q + 1e-12)


@pytest.mark.parametrize("suspects", [1, 7, 10, 20])
def test_one_control_fewer_and_no_latent_passes_alone(suspects: int) -> None:
    needed = controls_needed(suspects)
    others = [1.0] * (suspects - 1)

    def smallest(controls: int) -> float:
        return adjusted([1 / (controls + 1), *others])[0]

    assert smallest(needed) <= 0.1 + 1e-12
    assert smallest(needed - 1) > 0.1 + 1e-12
    assert controls_needed(10) == 99
