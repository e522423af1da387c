from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.study import Baseline, ablate, attribute, compare_ablation
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    run_naively,
)

LATENTS = [17, 3, 60]


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def decoder():
    return 3 * torch.randn(80, D_MODEL, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def baseline():
    return Baseline(torch.linspace(-1, 1, D_MODEL), 3, f"model.layers.{SITE}", {})


def ablate_naively(model, pair: Pair, row: torch.Tensor, mean: torch.Tensor, loss: str) -> float:
    unit = row.double() / row.double().norm()
    counted = slice(1 if pair.prompt[0] == BOS else 0, len(pair.prompt))

    def remove(hidden):
        changed = hidden.clone()
        for position in range(len(pair.prompt))[counted]:
            amount = (hidden[0, position] - mean) @ unit
            changed[0, position] = hidden[0, position] - amount * unit
        return changed

    def change(completion: list[int]) -> float:
        with torch.no_grad():
            before = run_naively(model, pair.prompt, completion, lambda hidden: hidden)
            after = run_naively(model, pair.prompt, completion, remove)
        return float(after - before) / (len(completion) if loss == "mean" else 1)

    tokens = len(range(len(pair.prompt))[counted])
    return (change(pair.positive) - change(pair.negative)) / tokens


@pytest.mark.parametrize("loss", ["sum", "mean"])
@pytest.mark.parametrize("batch_tokens", [20, 4096])
def test_against_a_hook_on_one_row_at_a_time(model, decoder, baseline, loss, batch_tokens):
    pairs = [*make_pairs(4), Pair([9, 8, 7], [6, 6], [10])]
    found = ablate(
        model, None, pairs, decoder, LATENTS, site=SITE, baseline=baseline,
        loss=loss, batch_tokens=batch_tokens, sinks=None,
    )  # fmt: skip
    expected = [
        [ablate_naively(model, pair, decoder[i], baseline.mean, loss) for i in LATENTS]
        for pair in pairs
    ]
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_float32_model(decoder, baseline):
    pairs = make_pairs(3)
    arguments = {"site": SITE, "baseline": baseline.mean}
    exact = ablate(make_model(torch.float64), None, pairs, decoder, LATENTS, **arguments)
    found = ablate(make_model(), None, pairs, decoder, torch.tensor(LATENTS), **arguments)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-5)


def test_first_order_is_the_derivative_of_the_ablation(model, decoder):
    """With ā = a − ε·(a − ā₀) the ablation is ε times as large: errors fall as ε², values as ε.

    One counted token, so that a baseline near its activation exists; steps large enough that the
    float32 rounding of captured activations does not count.
    """
    pair = Pair([BOS, 12], [9, 20], [7])
    acts = []
    with torch.no_grad():
        run_naively(model, pair.prompt, pair.positive, lambda h: acts.append(h[0, 1].clone()) or h)
    offset = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(8)).double()
    ratios = []
    for step in (0.3, 0.03):
        mean = acts[0] - step * offset
        result = attribute(model, None, [pair], decoder, site=SITE, baseline=mean, k=80)
        exact = ablate(model, None, [pair], decoder, result.latents, site=SITE, baseline=mean)
        ratios.append(float((exact - result.per_pair).norm() / exact.norm()))
        signs = exact.sign() == result.per_pair.sign()
        large = exact.abs() > 0.1 * exact.abs().max()
        assert bool(signs[large].all())
    assert ratios[1] < 0.01
    assert ratios[1] < ratios[0] / 5


def test_a_zero_row_changes_nothing(model, baseline):
    decoder = torch.zeros(2, D_MODEL)
    found = ablate(model, None, make_pairs(2), decoder, [1], site=SITE, baseline=baseline)
    assert torch.equal(found, torch.zeros(2, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": [80]}, "latent 80 does not exist"),
        ({"latents": []}, "no latents given"),
        ({"baseline": Baseline.zero(4)}, "baseline has d_model 4"),
        ({"decoder": torch.zeros(3, 5)}, "SAE has d_model 5"),
        ({"pairs": []}, "no pairs given"),
        ({"pairs": [Pair([6], [7], [7])]}, "pair 1: .*same completion"),
        ({"loss": "max"}, "loss must be one of"),
        ({"site": "model.layers.9"}, "no site"),
    ],
)
def test_bad_input(model, decoder, baseline, change, message):
    arguments = {"pairs": make_pairs(2), "decoder": decoder, "latents": LATENTS, "site": SITE}
    with pytest.raises(InputError, match=message):
        ablate(model, None, **{**arguments, "baseline": baseline, **change})


def test_check_against_numpy():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(5, 8))
    y = 2 * x + draw.normal(size=(5, 8))
    check = compare_ablation(torch.tensor(x), torch.tensor(y))
    means = x.mean(0), y.mean(0)
    assert check.correlation == pytest.approx(np.corrcoef(*means)[0, 1])
    assert check.correlation_entries == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    assert check.slope == pytest.approx(np.linalg.lstsq(means[0][:, None], means[1], rcond=None)[0])
    assert check.sign_agreement == np.mean(np.sign(means[0]) == np.sign(means[1]))
    assert (check.pairs, check.latents, check.undefined) == (5, 8, None)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([[1.0]], [[2.0]], "at least two"),
        ([[1.0, 1.0]], [[2.0, 3.0]], "differ"),
        ([[1.0, math.nan]], [[2.0, 3.0]], "NaN"),
    ],
)
def test_numbers_that_do_not_exist_are_nan_with_a_reason(x, y, reason):
    check = compare_ablation(torch.tensor(x), torch.tensor(y))
    assert math.isnan(check.correlation)
    assert reason in str(check.undefined)


def test_zeros_have_no_sign():
    check = compare_ablation(torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([[2.0, 5.0, 1.0]]))
    assert check.sign_agreement == 0.5
    none = compare_ablation(torch.zeros(1, 2), torch.ones(1, 2))
    assert math.isnan(none.sign_agreement)
    assert math.isnan(none.slope)


@pytest.mark.parametrize("shape", [(2, 3), (6,), (0, 6)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(InputError, match="must both be"):
        compare_ablation(torch.zeros(shape), torch.zeros(1, 6))
