"""Student's t against its tables, and intervals against how often they hold the truth."""

from __future__ import annotations

import math

import pytest
import torch

from deltalens.trials.verdicts.intervals import difference_variance, mean_variance
from deltalens.trials.verdicts.student import t_quantile
from helpers.simulated_sweep import expected_rate, table


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.706), (2, 4.303), (5, 2.571), (9, 2.262), (30, 2.042), (120, 1.980), (1e7, 1.960)],
)
def test_the_tables_of_t(freedom: float, t: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=6e-4)


def test_t_with_a_closed_form() -> None:
    for share in (0.5, 0.9, 0.99):
        assert t_quantile(share, 1) == pytest.approx(math.tan(math.pi * share / 2), rel=1e-9)
        expected = share * math.sqrt(2 / (1 - share**2))
        assert t_quantile(share, 2) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("latents", "prompts", "effect", "spread"),
    [(10, 40, 0.8, 0.8), (10, 40, 0.8, 0.0), (5, 100, -0.8, 0.5), (20, 25, 0.0, 1.0)],
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(
    latents: int, prompts: int, effect: float, spread: float
) -> None:
    """Of the mean over all latents and prompts that these were drawn from. Satterthwaite's degrees
    of freedom are an approximation: 94 to 98 % of 1500 sweeps each, for 3 to 20 latents."""
    draw, trials = torch.Generator().manual_seed(latents), 800
    truth = expected_rate(effect, spread, 0.7) - expected_rate(0.0, 0.0, 0.0)
    control = expected_rate(0.0, spread, 0.7) - expected_rate(0.0, 0.0, 0.0)
    effects = torch.tensor([effect] * latents + [0.0] * 30)
    rows, others = torch.arange(latents), torch.arange(latents, latents + 30)
    mean_held = difference_held = 0
    for _ in range(trials):
        outcomes = table(draw, latents + 30, prompts, effect=effects, spread=spread)
        changes = outcomes.changes()
        mean, both = mean_variance(outcomes, rows), difference_variance(outcomes, rows, others)
        assert mean is not None
        assert both is not None
        mean_held += abs(float(changes[rows].mean()) - truth) <= mean.half_width(0.95)
        found = float(changes[rows].mean() - changes[others].mean())
        difference_held += abs(found - truth + control) <= both.half_width(0.95)
    error = 3 * math.sqrt(0.95 * 0.05 / trials)
    for held in (mean_held, difference_held):
        assert 0.94 - error < held / trials < 0.98 + error


def test_a_single_prompt_has_no_interval() -> None:
    outcomes = table(torch.Generator().manual_seed(0), 8, 1, effect=[0.0] * 8, spread=0.0)
    assert mean_variance(outcomes, torch.arange(3)) is None
    assert difference_variance(outcomes, torch.arange(3), torch.arange(3, 8)) is None


def test_a_single_latent_is_taken_to_vary_as_the_controls_do() -> None:
    outcomes = table(torch.Generator().manual_seed(0), 9, 30, effect=[0.0] * 9, spread=1.0)
    found = difference_variance(outcomes, torch.tensor([0]), torch.arange(1, 9))
    assert found is not None
    spread = float(outcomes.changes()[1:].var())
    assert found.total >= spread * (1 + 1 / 8) * 0.999
    alone = difference_variance(outcomes, torch.arange(4), torch.tensor([8]))
    assert alone is None
