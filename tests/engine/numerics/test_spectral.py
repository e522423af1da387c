"""The bound on the spectral norm against LAPACK's in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deltalens.engine.numerics import spectral
from deltalens.engine.numerics.spectral import spectral_norm_bound

WIDTH = 300


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values):
    """A symmetric matrix with these eigenvalues in a random basis."""
    basis, _ = np.linalg.qr(normal(len(values), len(values)).double().numpy())
    return torch.from_numpy((basis * np.asarray(values)) @ basis.T).float()


def norm_of(matrix):
    return float(np.linalg.svd(matrix.double().numpy(), compute_uv=False)[0])


def rounded_down():
    """Ones in blocks whose squares, and just above one, where bfloat16 takes most away."""
    matrix = torch.block_diag(*[torch.ones(257, 257)] * 3)
    return matrix * (1 + 2.0**-8 - 2.0**-22)


NASTY = {
    "low rank": lambda: normal(WIDTH, 3) @ normal(3, WIDTH, seed=1),
    "clustered": lambda: with_spectrum(1 + 1e-6 * np.arange(WIDTH)),
    "one huge": lambda: with_spectrum([1e6, *[1.0] * (WIDTH - 1)]),
    "two signs": lambda: with_spectrum([1.0, -1.0] * (WIDTH // 2)),
    "falling": lambda: with_spectrum(2.0 ** -np.arange(WIDTH)),
    "one number": lambda: torch.nn.functional.pad(torch.full((1, 1), 3.0), (0, 99, 0, 99)),
    "one row": lambda: torch.cat([100 * normal(1, WIDTH), normal(WIDTH - 1, WIDTH)]),
    "rounded down": rounded_down,
    "not symmetric": lambda: normal(WIDTH, WIDTH).exp(),
    "far apart": lambda: normal(WIDTH, WIDTH) * torch.logspace(-30, 0, WIDTH)[:, None],
    "roundings": lambda: (m := normal(WIDTH, WIDTH)) - m.bfloat16().float(),
}


@pytest.mark.parametrize("width", [1, 2, 33, 257, 600])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("squarings", [0, 1, 2, 3])
def test_never_below_and_closer_with_every_squaring(width, scale, squarings):
    matrix = normal(width, width, seed=width)
    matrix = (matrix + matrix.T) * scale
    exact = norm_of(matrix)
    bound = spectral_norm_bound(matrix, squarings=squarings)
    assert exact <= bound <= exact * width ** (0.5 / 2**squarings) * 1.01


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_below_whatever_the_spectrum(name, dtype):
    matrix = NASTY[name]().to(dtype)
    exact = norm_of(matrix)
    for squarings in range(5):
        bound = spectral_norm_bound(matrix, squarings=squarings)
        assert exact * (1 - 1e-12) <= bound <= exact * len(matrix) ** (0.5 / 2**squarings) * 1.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2.0**-140, 2.0**-126, 2.0**126])
def test_the_ends_of_the_range_are_held(size, dtype):
    matrix = (normal(70, 70).clamp(-1, 1) * size).to(dtype)
    assert norm_of(matrix) <= spectral_norm_bound(matrix) < float("inf")


def test_no_squaring_more_than_is_needed(monkeypatch):
    squared = []
    square = spectral._square
    monkeypatch.setattr(spectral, "_square", lambda unit: squared.append(1) or square(unit))
    matrix = NASTY["roundings"]()
    bounds = [spectral_norm_bound(matrix, squarings=count) for count in range(4)]
    for count, bound in enumerate(bounds):
        squared.clear()
        assert spectral_norm_bound(matrix, enough=bound * (1 + 1e-6)) == bound
        assert len(squared) == count


def test_one_direction_is_bounded_by_its_own_norm():
    vector = torch.nn.functional.normalize(normal(100), dim=0)
    matrix = -7 * vector[:, None] * vector
    assert spectral_norm_bound(matrix) == pytest.approx(7, rel=2e-2)


def test_zero_is_zero():
    assert spectral_norm_bound(torch.zeros(5, 5)) == 0.0
