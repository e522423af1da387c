"""Outer products from slices against sums without rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deltalens.engine.numerics import slices
from deltalens.engine.numerics.precision import gamma
from helpers.exact_outer import KINDS, distance, exact_outer, nasty_rows

SHAPES = [(1, 1), (3, 7), (65, 5), (1000, 6), (4096, 3)]


def magnitude(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(x.norm(dim=1) @ y.norm(dim=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tokens", "width"), SHAPES)
def test_is_off_by_no_more_than_it_says(kind, tokens, width):
    x, y = nasty_rows(kind, tokens, width)
    exact, size = exact_outer(x, y), magnitude(x, y)
    for accuracy in (2.0**-12, 2.0**-30, 2.0**-46):
        found = slices.sliced_outer(x.clone(), y.clone(), accuracy * tokens * size)
        if found is not None:
            assert found.error <= accuracy * tokens * size
            assert distance(found.total, exact) <= found.error + gamma(2, torch.float64) * size


ENOUGH = sorted({*KINDS} - {"huge range", "one large", "heavy", "all zeros"})  # of slices


@pytest.mark.parametrize("kind", ENOUGH)
def test_slices_are_enough_where_rows_are_alike_in_size(kind):
    x, y = nasty_rows(kind, 4096, 24)
    allowed = gamma(4096 - 2, torch.float64) * magnitude(x, y)
    assert slices.sliced_outer(x, y, allowed) is not None


@pytest.mark.parametrize("count", range(1, 10))
def test_every_number_of_slices_keeps_its_bound_and_the_bound_is_of_use(count):
    x, y = nasty_rows("normal", 300, 8)
    exact = exact_outer(x, y)
    slices.balance(x, y)
    scales = [slices.column_scales(each) for each in (x, y)]
    sizes = 300 * float(scales[0].norm() * scales[1].norm())
    found = slices.sliced_outer(x, y, slices.missing(count) * sizes * 1.001)
    assert found is not None
    off = distance(found.total, exact)
    assert off <= found.error + gamma(2, torch.float64) * sizes
    if count < 7:
        assert off > found.error / 500


def test_scaling_leaves_the_product_as_it_is():
    x, y = nasty_rows("opposed", 40, 5)
    exact = exact_outer(x, y)
    slices.balance(x, y)
    assert (exact_outer(x, y) == exact).all()
    assert x.abs().amax(1).log2().sub(y.abs().amax(1).log2()).abs().max() < 4


@pytest.mark.parametrize("count", [1, 3, 7])
def test_slices_add_up_to_the_rows(count):
    x, _ = nasty_rows("outlier columns", 50, 7)
    scales = slices.column_scales(x)
    assert (x.abs() < scales).all()
    assert (torch.frexp(scales).mantissa == 0.5).all()
    parts = slices.cut(x, scales, count)
    assert torch.equal(parts, parts.round())
    assert parts.abs().max() <= 64
    units = 2.0 ** (1 - 7 * torch.arange(1, count + 1, dtype=torch.float64))
    off = (parts * units[:, None, None]).sum(0) * scales - x
    assert (off.abs() <= 2.0 ** (-7 * count) * scales).all()
    assert off.abs().max() > 2.0 ** (-7 * count - 1) * scales.min()


@pytest.mark.parametrize("signs", ["alike", "mixed"])
def test_the_longest_product_of_the_largest_slices_is_exact(signs):
    left = torch.full((slices.LONGEST, 40), 64.0)
    if signs == "mixed":
        left[torch.rand(left.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = -64.0
    truth = left.long().T @ left.long()
    assert truth.max() == 2**24
    assert torch.equal(slices.exact_product(left, left).long(), truth)


def test_the_precision_of_products_does_not_matter():
    """Other fp32 products of this CPU are rounded with "medium"."""
    x, y = nasty_rows("normal", 3000, 64)
    exact = slices.sliced_outer(x.clone(), y.clone(), 1e-11 * magnitude(x, y))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        rounded = slices.sliced_outer(x.clone(), y.clone(), 1e-11 * magnitude(x, y))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact.total, rounded.total)


def test_slices_lose_nothing_in_bfloat16(monkeypatch):
    x, y = nasty_rows("normal", 500, 9)
    exact = slices.sliced_outer(x.clone(), y.clone(), 1e-11 * magnitude(x, y))
    monkeypatch.setattr(slices, "slice_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(slices, "exact_product", lambda a, b: a.float().T @ b.float())
    halves = slices.sliced_outer(x.clone(), y.clone(), 1e-11 * magnitude(x, y))
    assert slices.cut(x, slices.column_scales(x), 2).dtype == torch.bfloat16
    assert torch.equal(exact.total, halves.total)


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e200])
def test_numbers_beyond_all_scales_are_left_to_fp64(value):
    x, y = nasty_rows("normal", 20, 4)
    x[3, 2] = value
    y[3] = value
    assert slices.sliced_outer(x, y, np.inf) is None
