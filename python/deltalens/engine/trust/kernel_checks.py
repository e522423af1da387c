"""The Triton kernels by themselves against fp64."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from deltalens.engine.trust.check import UNIT, Check, Operands, worst

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def kernel_checks(given: Operands) -> Iterator[Check]:
    """Every kernel of the forms, and norms; errors are relative to the size of the terms."""
    for name, of_kernel in (
        ("token", _token),
        ("latent", _latent),
        ("quadratic", _quadratic),
        ("norms", _norms),
    ):
        yield from given.attempt(name, of_kernel(given))


def _limit(given: Operands) -> float:
    return (2 * given.sizes.d_model * given.parts + given.sizes.tokens + 4) * UNIT


def _decoder(given: Operands, seed: int = 0) -> Tensor:
    return given.normal(given.sizes.n_latents, given.sizes.d_model, dtype=given.dtype, seed=seed)


def _rows(given: Operands) -> tuple[Tensor, Tensor]:
    """Gradients and activations [parts, tokens, d_model]."""
    from deltalens.kernels.parts import split_parts

    shape = (given.sizes.tokens, given.sizes.d_model)
    grads, acts = (
        split_parts(given.normal(*shape, seed=seed), given.dtype, given.parts) for seed in (2, 3)
    )
    return grads, acts


def _size(rows: Tensor, grads: Tensor, acts: Tensor) -> Tensor:
    by_token = grads.double().sum(0).norm(dim=1) @ acts.double().sum(0).norm(dim=1)
    return rows.norm(dim=1).square() * by_token


def _token(given: Operands) -> Iterator[Check]:
    from deltalens.kernels import token_attribution

    W_dec, (grads, acts), limit = _decoder(given), _rows(given), _limit(given)
    rows = W_dec.double()
    x, y = (rows @ each.double().sum(0).T for each in (grads, acts))
    size = _size(rows, grads, acts)
    exact = {"sum": (x * y).sum(1), "abs": (x * y).abs().sum(1), "max": (x * y).amax(1)}
    exact["positive"] = (x * y).clamp(min=0).sum(1)
    for reduction, expected in exact.items():
        result = token_attribution(W_dec, grads, acts, reduction=reduction, squares=True)
        yield given.check(f"token {reduction}", worst(result.scores, expected, size), limit)
    squares = (
        (result.sum_xx, x, grads),
        (result.sum_yy, y, acts),
    )
    for found, products, of_rows in squares:
        assert found is not None
        most = rows.norm(dim=1).square() * of_rows.double().sum(0).square().sum()
        error = worst(found, products.square().sum(1), most)
        yield given.check("token squares", error, limit)
    tokens = given.sizes.tokens
    cut = torch.tensor(sorted({0, tokens // 3, tokens // 2, tokens}))
    sums = torch.stack([(x * y)[:, a:b].sum(1) for a, b in pairwise(cut.tolist())])
    result = token_attribution(W_dec, grads, acts, reduction="segments", segments=cut)
    assert result.spread is not None
    yield given.check("token segments", worst(result.scores, sums.mean(0), size), limit)
    spread = (sums - sums.mean(0)).square().sum(0)
    yield given.check("token spread", worst(result.spread, spread, size.square()), 4 * limit)


def _latent(given: Operands) -> Iterator[Check]:
    from deltalens.kernels import latent_attribution

    W_dec, W_enc, (grads, acts) = _decoder(given), _decoder(given, seed=1), _rows(given)
    n_latents, tokens = given.sizes.n_latents, given.sizes.tokens
    rows = W_dec.double()
    x = rows @ grads.double().sum(0).T
    bias, mean = (given.normal(n_latents, dtype=torch.float32, seed=seed) for seed in (4, 5))
    pre = W_enc.double() @ acts.double().sum(0).T + bias.double()[:, None]
    z = torch.where(pre > 0.5, pre, 0.0) - mean.double()[:, None]
    zeros = torch.zeros_like(bias)
    scores = latent_attribution(
        W_dec,
        W_enc,
        grads,
        acts,
        latents=torch.stack([zeros + 1, bias, 0.5 - bias, mean, zeros, zeros]),
        tokens=torch.tensor([[-torch.inf], [0.0], [0.0]], device=bias.device).repeat(1, tokens),
    ).scores
    # A pre-activation within rounding of the threshold may fall on either side.
    near = ((pre - 0.5).abs() < 1e-4 * pre.abs().max()).double() * 0.5
    slack = (x.abs() * near).sum(1)
    largest = (x.abs() * (pre.abs() + z.abs() + 1)).sum(1) + _size(rows, grads, acts)
    off = ((scores.double() - (x * z).sum(1)).abs() - slack).clamp(min=0)
    yield given.check("latent", float((off / largest).max()), 2 * _limit(given))


def _quadratic(given: Operands) -> Iterator[Check]:
    from deltalens.kernels import fold_symmetric, quadratic_form
    from deltalens.kernels.parts import split_parts

    W_dec, width = _decoder(given), given.sizes.d_model
    rows, moment = W_dec.double(), given.normal(width, width, seed=6)
    lower = split_parts(fold_symmetric(moment + moment.T), given.dtype, given.parts)
    whole = lower.double().sum(0)
    expected = ((rows @ whole.T) * rows).sum(1)
    terms = ((rows.abs() @ whole.abs().T) * rows.abs()).sum(1)
    scores = quadratic_form(W_dec, lower[None])[0]
    yield given.check("quadratic", worst(scores, expected, terms), _limit(given))


def _norms(given: Operands) -> Iterator[Check]:
    from deltalens.kernels.row_norms import row_norms

    W_dec = _decoder(given)
    exact = W_dec.double().norm(dim=1)
    yield given.check("norms", worst(row_norms(W_dec), exact, exact), 1e-14)


def sum_checks(given: Operands) -> Iterator[Check]:
    """How much of the assumed error of a tensor core's sums is used where nothing cancels."""
    from deltalens.kernels import token_attribution

    d_model = given.sizes.d_model
    leading = torch.full((1, 1, d_model), 2.0**-12, dtype=torch.float64, device=given.device)
    leading[..., 0] = 1.0  # every other product is less than the last bit of the first
    spread = 1 + given.normal(1, 1, d_model).abs().clamp(max=1)
    for name, row in (("first", leading), ("even", spread)):
        held = row.to(given.dtype)
        exact = held[0].double().square().sum() ** 2
        found = token_attribution(held[0].contiguous(), held, held).scores.double()
        used = float((found - exact).abs() / exact) / (2 * d_model * UNIT)
        yield given.check(f"sums, {name}", used, 1.0)
