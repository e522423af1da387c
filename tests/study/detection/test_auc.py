"""AUC, its variance and its interval against counting, the papers' formulas and simulation."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import pytest
import torch

from deltalens import InputError
from deltalens.study.detection.auc import aucs

NORMAL = NormalDist()


def wins(x, y):
    return 1.0 if x > y else 0.5 if x == y else 0.0


def by_counting(scores, shown, clusters):
    """AUC and Obuchowski's variance, sum by sum as the paper has them."""
    above = [(s, c) for s, is_shown, c in zip(scores, shown, clusters, strict=True) if is_shown]
    below = [(s, c) for s, is_shown, c in zip(scores, shown, clusters, strict=True) if not is_shown]
    m, n = len(above), len(below)
    value = sum(wins(x, y) for x, _ in above for y, _ in below) / (m * n)
    names = sorted(set(clusters))
    v10 = dict.fromkeys(names, 0.0)
    v01 = dict.fromkeys(names, 0.0)
    for x, c in above:
        v10[c] += sum(wins(x, y) for y, _ in below) / n - value
    for y, c in below:
        v01[c] += sum(wins(x, y) for x, _ in above) / m - value
    i10, i01, i = len({c for _, c in above}), len({c for _, c in below}), len(names)
    s10 = i10 / ((i10 - 1) * m) * sum(v**2 for v in v10.values())
    s01 = i01 / ((i01 - 1) * n) * sum(v**2 for v in v01.values())
    s11 = i / (i - 1) * sum(v10[c] * v01[c] for c in names)
    return value, s10 / m + s01 / n + 2 * s11 / (m * n)


def delong(scores, shown):
    """AUC and DeLong's variance of independent texts."""
    above = [s for s, is_shown in zip(scores, shown, strict=True) if is_shown]
    below = [s for s, is_shown in zip(scores, shown, strict=True) if not is_shown]
    x = torch.tensor([sum(wins(a, b) for b in below) / len(below) for a in above])
    y = torch.tensor([sum(wins(a, b) for a in above) / len(above) for b in below])
    return float(x.mean()), float(x.double().var() / len(x) + y.double().var() / len(y))


def drawn(texts, clusters, columns=3, seed=0):
    """Scores with ties, labels and clusters of any size."""
    draw = random.Random(seed)
    scores = torch.tensor(
        [[float(draw.randrange(9)) for _ in range(columns)] for _ in range(texts)],
        dtype=torch.float64,
    )
    shown = torch.tensor([True, False, *(draw.random() < 0.4 for _ in range(texts - 2))])
    return scores, shown, torch.tensor([draw.randrange(clusters) * 7 for _ in range(texts)])


@pytest.mark.parametrize(("texts", "clusters"), [(40, 12), (40, 3), (9, 200), (150, 60)])
def test_values_and_variances_are_the_papers(texts, clusters):
    scores, shown, groups = drawn(texts, clusters)
    for column, found in enumerate(aucs(scores, shown, groups)):
        value, variance = by_counting(scores[:, column].tolist(), shown.tolist(), groups.tolist())
        assert found.value == pytest.approx(value, rel=1e-12)
        assert found.stderr == pytest.approx(math.sqrt(variance), rel=1e-9)
        at, half = math.log(value / (1 - value)), 1.959963985 * found.stderr / value / (1 - value)
        assert found.low == pytest.approx(1 / (1 + math.exp(half - at)), rel=1e-6)
        assert found.high == pytest.approx(1 / (1 + math.exp(-half - at)), rel=1e-6)


def test_texts_that_are_each_a_cluster_have_the_variance_of_delong():
    scores, shown, _ = drawn(60, 1)
    for column, found in enumerate(aucs(scores, shown, torch.arange(60))):
        value, variance = delong(scores[:, column].tolist(), shown.tolist())
        assert found.value == pytest.approx(value, rel=1e-6)
        assert found.stderr == pytest.approx(math.sqrt(variance), rel=1e-6)


def test_other_labels_turn_it_over_and_other_scales_leave_it():
    scores, shown, groups = drawn(50, 20)
    same = aucs(scores.pow(3) * 5 - 1, shown, groups)
    turned = aucs(scores, ~shown, groups)
    for one, again, other in zip(aucs(scores, shown, groups), same, turned, strict=True):
        assert one == again
        assert other.value == pytest.approx(1 - one.value)
        assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low))


def test_kinds_that_do_not_overlap_have_an_interval_all_the_same():
    shown = torch.tensor([True] * 10 + [False] * 8)
    scores = shown.double()[:, None] * torch.tensor([1.0, -1.0])
    high, low = aucs(scores, shown, torch.arange(18))
    assert high == (1.0, pytest.approx(0.025 ** (1 / 8)), 1.0, 0.0)
    assert low == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 8)), 0.0)
    pairs = torch.cat([torch.arange(8), torch.arange(10)])  # 10 clusters: 5 disjoint comparisons
    assert aucs(scores, shown, pairs)[0].low == pytest.approx(0.025 ** (1 / 5))


@pytest.mark.parametrize(
    ("scores", "clusters"),
    [
        ([1.0, 1, 1, 1], [0, 1, 2, 3]),
        ([1.0, 3, 2, 4], [0, 0, 0, 0]),
        ([1.0, 3, 2, 4], [0, 0, 1, 2]),
    ],
)
def test_what_is_not_known_is_not_said(scores, clusters):
    """Equal scores; a single cluster of both kinds, or of one."""
    shown = torch.tensor([True, True, False, False])
    scores = torch.tensor(scores, dtype=torch.float64)[:, None]
    (found,) = aucs(scores, shown, torch.tensor(clusters))
    assert found.value == pytest.approx(by_counting_value(scores[:, 0].tolist(), shown.tolist()))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def by_counting_value(scores, shown):
    above = [s for s, is_shown in zip(scores, shown, strict=True) if is_shown]
    below = [s for s, is_shown in zip(scores, shown, strict=True) if not is_shown]
    return sum(wins(x, y) for x in above for y in below) / (len(above) * len(below))


def test_texts_of_one_kind_are_refused():
    with pytest.raises(InputError, match="3 texts show the behaviour and 0 do not"):
        aucs(torch.zeros(3, 1), torch.ones(3, dtype=torch.bool), torch.arange(3))


def coverage(found, truth):
    return sum(one.low <= truth <= one.high for one in found) / len(found)


@pytest.mark.parametrize("pairs", [30, 100])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.2])
def test_intervals_hold_the_truth_for_pairs_that_share_prompts(pairs, shift):
    """Both texts of a pair move with their prompt; 2,000 simulated sets of held-out pairs."""
    draw = torch.Generator().manual_seed(round(10 * shift) + pairs)
    sets, spread = 2000, 1.0
    prompt = spread * torch.randn(pairs, sets, generator=draw, dtype=torch.float64)
    noise = torch.randn(2, pairs, sets, generator=draw, dtype=torch.float64)
    scores = torch.cat([prompt + noise[0] + shift, prompt + noise[1]])
    shown = torch.arange(2 * pairs) < pairs
    found = aucs(scores, shown, torch.arange(pairs).repeat(2))
    apart, within = math.sqrt(2 * (1 + spread**2)), math.sqrt(2)
    truth = NORMAL.cdf(shift / apart) * (1 - 1 / pairs) + NORMAL.cdf(shift / within) / pairs
    assert abs(sum(one.value for one in found) / sets - truth) < 0.005
    assert 0.93 <= coverage(found, truth) <= 0.975


def test_answers_to_one_prompt_count_together():
    """Scores of prompts, of which each has eight answers: texts taken as independent are not."""
    draw = torch.Generator().manual_seed(5)
    prompts, answers, sets = 60, 8, 2000
    score = torch.randn(prompts, sets, generator=draw, dtype=torch.float64)
    rate = torch.rand(prompts, generator=draw) * 0.8 + 0.1
    shown = torch.rand(answers, prompts, generator=draw) < rate  # the same in all sets
    scores, clusters = score.repeat(answers, 1), torch.arange(prompts).repeat(answers)
    together = aucs(scores, shown.flatten(), clusters)
    alone = aucs(scores, shown.flatten(), torch.arange(answers * prompts))
    assert 0.925 <= coverage(together, 0.5) <= 0.98
    assert coverage(alone, 0.5) < 0.85


def test_few_texts_that_hardly_overlap_are_covered():
    """Intervals of sets without any overlap are among them."""
    draw = torch.Generator().manual_seed(6)
    sets, each, shift = 2000, 8, 2.5
    scores = torch.randn(2 * each, sets, generator=draw, dtype=torch.float64)
    shown = torch.arange(2 * each) < each
    scores[:each] += shift
    found = aucs(scores, shown, torch.arange(2 * each))
    assert sum(one.value == 1 for one in found) > 200
    assert coverage(found, NORMAL.cdf(shift / math.sqrt(2))) >= 0.94
