"""Linear layers by oneDNN: the formula, which layers take it, and the texts that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deltalens.lm import sample
from deltalens.lm.sampling import draws, products
from deltalens.lm.sampling.alone import logits_alone
from helpers.families import WIDTH, build, token_ids

pytestmark = pytest.mark.skipif(not products._is_offered(), reason="torch has no MKL or oneDNN")

WIDE, LARGE = 576, 1 << 18
UNIT = 2.0**-24  # of rounding in float32


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows and tokens of each product that oneDNN makes; every layer is large enough for it."""
    calls: list[int] = []
    linear = products._linear

    def noted(layer: nn.Linear, inputs: Tensor) -> Tensor:
        calls.append(inputs.shape[:-1].numel())
        return linear(layer, inputs)

    monkeypatch.setattr(products, "_linear", noted)
    monkeypatch.setattr(products, "_LARGE", 1)
    return calls


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (3, 7), (257, 1)])
def test_products_are_the_formula(shape: tuple[int, int], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(WIDE, LARGE // WIDE + 1, bias=bias).requires_grad_(False)
    inputs = torch.randn(*shape, 2 * WIDE, generator=generator)[..., ::2]  # strided
    weight, wide = layer.weight.double(), inputs.double()
    expected, size = wide @ weight.T, wide.abs() @ weight.abs().T
    if bias:
        expected, size = expected + layer.bias.double(), size + layer.bias.abs().double()
    with products.fast_products(layer):
        assert "forward" in layer.__dict__
        found = layer(inputs)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert ((found.double() - expected).abs() <= (WIDE + 2) * UNIT * size).all()
    assert "forward" not in layer.__dict__


class OwnClass(nn.Linear):
    """As quantised layers and those with adapters are."""


class OwnTensor(Tensor):
    """As quantised weights are."""


def own_weight() -> nn.Module:
    layer = nn.Linear(WIDE, WIDE)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(OwnTensor))
    return layer


def own_forward() -> nn.Module:
    layer = nn.Linear(WIDE, WIDE)
    layer.forward = layer.forward  # type: ignore[method-assign]  # as accelerate sets it
    return layer


@pytest.mark.parametrize(
    "made",
    [
        lambda: nn.Linear(8, 8),
        lambda: nn.Linear(WIDE, WIDE, dtype=torch.bfloat16),
        lambda: nn.Linear(WIDE, WIDE, dtype=torch.float64),
        lambda: nn.Linear(WIDE, WIDE, device="meta"),
        lambda: OwnClass(WIDE, WIDE),
        own_weight,
        own_forward,
    ],
)
def test_other_layers_stay_as_they_are(made: Callable[[], nn.Module]) -> None:
    layer = made()
    before = layer.__dict__.get("forward")
    with products.fast_products(nn.Sequential(layer)):
        assert layer.__dict__.get("forward") is before
    assert layer.__dict__.get("forward") is before


def test_autocast_and_a_disabled_onednn_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(WIDE, WIDE)
    with torch.autocast("cpu", dtype=torch.bfloat16), products.fast_products(layer):
        assert layer(torch.ones(2, WIDE)).dtype == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with products.fast_products(layer):
        assert "forward" not in layer.__dict__


def test_an_error_leaves_nothing_on_the_layers() -> None:
    layer = nn.Linear(WIDE, WIDE)
    with pytest.raises(KeyError), products.fast_products(layer):
        raise KeyError
    assert "forward" not in layer.__dict__


@pytest.mark.parametrize("steer_tokens", ["all", "generated"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_texts_are_those_of_torchs_own_products(
    family: str, steer_tokens: Any, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(family).float()
    prompts = [token_ids(length, length) for length in (3, 12, 7, 12)] * 3
    directions = torch.randn(len(prompts), WIDTH, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"site": 1, "directions": directions}
    given |= {"strengths": 1.0, "steer_tokens": steer_tokens, "max_new_tokens": 12}
    found = sample(model, None, prompts, **given)
    assert len(counted) > 50
    monkeypatch.setattr(products, "_is_offered", lambda: False)
    counted.clear()
    assert sample(model, None, prompts, **given) == found
    assert not counted


def test_a_row_in_doubt_is_read_by_torchs_own(
    counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a text does not depend on which products the batch had."""
    model, alone = build("llama").float(), []

    def watched(*given: Any) -> Tensor:
        before = len(counted)
        logits = logits_alone(*given)
        alone.append(len(counted) - before)
        return logits

    monkeypatch.setattr("deltalens.lm.sampling.pool.logits_alone", watched)
    monkeypatch.setitem(draws.MARGIN, torch.float32, 10.0)
    sample(model, None, [token_ids(4, 1)], max_new_tokens=3)
    assert counted
    assert alone
    assert not any(alone)
