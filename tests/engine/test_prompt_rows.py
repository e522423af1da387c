"""Rows of prompts of different lengths, from the tensors that hook libraries keep."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import deltalens
from deltalens.errors import InputError

PROMPTS, POSITIONS, D_MODEL, LATENTS = 3, 7, 5, 11
LENGTHS = (7, 2, 4)


@pytest.fixture
def cached() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shape = (PROMPTS, POSITIONS, D_MODEL)
    mask = torch.arange(POSITIONS) >= POSITIONS - torch.tensor(LENGTHS)[:, None]
    return torch.randn(shape), torch.randn(shape), mask


def of_a_prompt(acts: Tensor, grads: Tensor, W_dec: Tensor) -> Tensor:
    """Mean over a prompt's tokens, fp64, written out."""
    acts, grads, W_dec = acts.double(), grads.double(), W_dec.double()
    return -((grads @ W_dec.T) * (acts @ W_dec.T)).mean(0)


def test_weights_give_the_mean_over_prompts(cached: tuple[Tensor, Tensor, Tensor]) -> None:
    acts, grads, mask = cached
    W_dec = torch.randn(LATENTS, D_MODEL)
    rows = deltalens.rows_from(acts, grads, mask)
    each = torch.stack(
        [of_a_prompt(a[m], g[m], W_dec) for a, g, m in zip(acts, grads, mask, strict=True)]
    )
    scores = deltalens.attribution(rows.acts, rows.grads, W_dec, weights=rows.weights)
    torch.testing.assert_close(scores.double(), each.mean(0), rtol=1e-5, atol=1e-6)
    mean, stderr = deltalens.attribution_statistics(rows.acts, rows.grads, W_dec, rows.segments)
    torch.testing.assert_close(mean.double(), each.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stderr.double(), each.std(0) / 3**0.5, rtol=1e-5, atol=1e-6)


def test_one_prompt_needs_no_batch_and_no_mask(cached: tuple[Tensor, Tensor, Tensor]) -> None:
    acts, grads, _ = cached
    rows = deltalens.rows_from(acts[0], grads[0])
    assert torch.equal(rows.acts, acts[0])
    assert torch.equal(rows.grads, grads[0])
    assert rows.weights.tolist() == [1 / POSITIONS] * POSITIONS
    assert rows.segments.tolist() == [0, POSITIONS]


def test_values_of_proxies_and_tensors_with_gradients(
    cached: tuple[Tensor, Tensor, Tensor],
) -> None:
    acts, grads, mask = cached
    rows = deltalens.rows_from(
        SimpleNamespace(value=acts.requires_grad_()), SimpleNamespace(value=grads), mask.int()
    )
    assert not rows.acts.requires_grad
    assert torch.equal(rows.acts, acts.detach()[mask])


def test_bad_input(cached: tuple[Tensor, Tensor, Tensor]) -> None:
    acts, grads, mask = cached
    with pytest.raises(InputError, match=r"acts must be a tensor .* got a NoneType"):
        deltalens.rows_from(None, grads)
    with pytest.raises(InputError, match=r"grads must be a tensor .* got \[7\]"):
        deltalens.rows_from(acts, grads[0, :, 0])
    with pytest.raises(InputError, match=r"one shape, got \[3, 7, 5\] and \[2, 7, 5\]"):
        deltalens.rows_from(acts, grads[:2])
    with pytest.raises(InputError, match=r"mask must be .* \[3, 7\], got \[3, 6\]"):
        deltalens.rows_from(acts, grads, mask[:, 1:])
    mask[1] = False
    with pytest.raises(InputError, match="mask counts no token of prompt 1"):
        deltalens.rows_from(acts, grads, mask)


def test_any_object_with_a_decoder_is_one(cached: tuple[Tensor, Tensor, Tensor]) -> None:
    acts, grads, _ = cached
    sae = nn.Module()
    sae.W_dec = nn.Parameter(torch.randn(LATENTS, D_MODEL))
    scores = deltalens.attribution(acts[0], grads[0], sae)
    assert torch.equal(scores, deltalens.attribution(acts[0], grads[0], sae.W_dec.detach()))
    top = deltalens.attribution_topk(acts[0], grads[0], sae, k=2)
    assert top.latents.tolist() == scores.argsort(descending=True)[:2].tolist()
    with pytest.raises(InputError, match="got Linear"):
        deltalens.attribution(acts[0], grads[0], nn.Linear(2, 2))
