"""The bound on the spectral norm against LAPACK's."""

from __future__ import annotations

import pytest
import torch

from deltalens.engine.numerics.spectral import spectral_norm_bound


@pytest.mark.parametrize("width", [1, 2, 33, 200])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("squarings", [0, 1, 2, 3])
def test_never_below_and_closer_with_every_squaring(width, scale, squarings):
    generator = torch.Generator().manual_seed(width)
    matrix = torch.randn(width, width, generator=generator)
    matrix = (matrix + matrix.T) * scale
    exact = float(torch.linalg.matrix_norm(matrix.double(), ord=2))
    bound = spectral_norm_bound(matrix, squarings)
    assert exact <= bound <= exact * width ** (0.5 / 2**squarings) * 1.01


def test_one_direction_is_bounded_by_its_own_norm():
    vector = torch.nn.functional.normalize(torch.randn(100), dim=0)
    matrix = -7 * vector[:, None] * vector
    assert spectral_norm_bound(matrix) == pytest.approx(7, rel=2e-2)


def test_zero_is_zero():
    assert spectral_norm_bound(torch.zeros(5, 5)) == 0.0
