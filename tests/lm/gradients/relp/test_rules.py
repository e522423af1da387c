"""Each rule's slope beside finite differences of the function with its factor held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from deltalens.lm.gradients.relp.norms import norm_of
from deltalens.lm.gradients.relp.products import GatedProducts
from deltalens.lm.gradients.relp.rules import halved, identity

EPS = 1e-3
Function = Callable[[Tensor], Tensor]


def slope_along(function: Function, x: Tensor, step: Tensor) -> Tensor:
    """Central difference; the functions here are linear."""
    return (function(x + step) - function(x - step)) / 2


def root_mean_square(x: Tensor, gain: Tensor) -> Function:
    scale = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    return lambda at: gain * at / scale


def layer_norm(x: Tensor, gain: Tensor) -> Function:
    scale = (x.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    return lambda at: gain * (at - at.mean(-1, keepdim=True)) / scale


def layer_norm_without_weights(x: Tensor, gain: Tensor) -> Function:
    scale = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return lambda at: (at - at.mean(-1, keepdim=True)) / scale


NORMS: dict[str, tuple[Callable[[int], Any], Any]] = {
    "nn.LayerNorm": (lambda n: nn.LayerNorm(n, EPS), layer_norm),
    "nn.RMSNorm": (lambda n: nn.RMSNorm(n, EPS), root_mean_square),
    "Llama": (lambda n: LlamaRMSNorm(n, EPS), root_mean_square),
    "Gemma": (
        lambda n: GemmaRMSNorm(n, EPS),
        lambda x, gain: root_mean_square(x, 1 + gain),
    ),
    "T5": (lambda n: T5LayerNorm(n, EPS), root_mean_square),
    "Olmo": (OlmoLayerNorm, layer_norm_without_weights),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("width", [7, 576])
def test_a_norm_is_divided_by_a_fixed_scale(name: str, width: int) -> None:
    torch.manual_seed(width)
    make, frozen = NORMS[name]
    module = make(width).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(2, 5, width, dtype=torch.float64, requires_grad=True)
    step, up = torch.randn(2, *x.shape, dtype=torch.float64)
    value = module(x.detach())
    found = norm_of(module, width, x).fixed(x, value, "norm")
    assert torch.equal(found, value)
    (grad,) = torch.autograd.grad(found, x, up)
    gain = getattr(module, "weight", torch.ones(width))
    expected = (slope_along(frozen(x.detach(), gain.detach()), x.detach(), step) * up).sum()
    # transformers' norms compute in fp32.
    torch.testing.assert_close((grad * step).sum(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["nn.LayerNorm", "Llama", "Gemma"])
def test_a_norm_in_16_bits(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    make, frozen = NORMS[name]
    module = make(576).to(dtype)
    x = torch.randn(3, 576).to(dtype).requires_grad_()
    up = torch.randn(3, 576).to(dtype)
    found = norm_of(module, 576, x).fixed(x, module(x.detach()), "norm")
    (grad,) = torch.autograd.grad(found, x, up)
    wide = x.detach().double().requires_grad_()
    linear = frozen(wide.detach(), module.weight.detach().double())
    (expected,) = torch.autograd.grad(linear(wide), wide, up.double())
    assert float((grad - expected).norm() / expected.norm()) < 0.01


def test_a_row_of_zeros_has_the_slope_of_none() -> None:
    module, x = LlamaRMSNorm(6, EPS), torch.zeros(2, 6, requires_grad=True)
    found = norm_of(module, 6, x).fixed(x, module(x.detach()), "norm")
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(grad, torch.zeros(2, 6))


def test_an_activation_is_its_input_times_a_fixed_ratio() -> None:
    x = torch.tensor([-3.0, -1e-6, 0.0, 1e-6, 0.5, 8.0], dtype=torch.float64, requires_grad=True)
    value = silu(x.detach())
    found = identity(x, value, 0.5)
    assert torch.equal(found, value)
    (grad,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(grad, torch.sigmoid(x.detach()), rtol=1e-12, atol=1e-6)


def test_a_product_gives_each_factor_half() -> None:
    a = torch.randn(4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    found = halved(a * b)
    assert torch.equal(found, a * b)
    of_a, of_b = torch.autograd.grad(found.sum(), (a, b))
    assert torch.equal(of_a, b / 2)
    assert torch.equal(of_b, a / 2)


def test_a_gate_that_was_multiplied_with_a_constant_is_still_one() -> None:
    gate = torch.randn(4, dtype=torch.float64, requires_grad=True)
    up = torch.randn(4, dtype=torch.float64, requires_grad=True)
    with GatedProducts() as products:
        value = gate * 1.0
        products.activated(value)
        found = (value * 3.0) * up
        other = up * gate
    of_gate, of_up = torch.autograd.grad(found.sum(), (gate, up))
    assert torch.equal(of_gate, 1.5 * up)
    assert torch.equal(of_up, 1.5 * gate)
    assert torch.equal(torch.autograd.grad(other.sum(), gate)[0], up)
