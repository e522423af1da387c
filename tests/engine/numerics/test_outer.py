"""Sums of outer products against torch's own product, at every level of vector instructions."""

from __future__ import annotations

import pytest
import torch

from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.numerics.outer import add_outer, symmetrise

SHAPES = [(1, 1), (700, 45), (384, 14), (385, 16), (50, 33), (1000, 64)]
LEVELS = [] if cpu_extension() is None else cpu_extension().levels()


def random_rows(tokens: int, width: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(tokens, width, dtype=torch.float64, generator=generator) for _ in range(2)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("tokens", "width"), SHAPES)
def test_equals_the_product(monkeypatch, level, tokens, width):
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", level)
    x, y = random_rows(tokens, width)
    total = torch.full((width, width), 3.0, dtype=torch.float64)
    add_outer(total, x, y)
    bound = 2.0**-52 * (tokens + 8) * (x.abs().T @ y.abs() + 3)
    assert ((total - (x.T @ y + 3)).abs() <= bound).all()


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "portable"])
def test_compiled_sums_are_the_same_for_any_number_of_threads(monkeypatch, level):
    """Torch's own, which takes the place of the portable level, need not be."""
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", level)
    x, y = random_rows(900, 70)
    totals = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            totals.append(torch.zeros(70, 70, dtype=torch.float64))
            add_outer(totals[-1], x, y)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])


def test_transposed_rows_are_accepted():
    x, y = random_rows(30, 30)
    total = torch.zeros(30, 30, dtype=torch.float64)
    add_outer(total, x.T, y)
    torch.testing.assert_close(total, x @ y)


def test_without_the_extension_torch_multiplies(monkeypatch):
    monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    x, y = random_rows(30, 8)
    total = torch.zeros(8, 8, dtype=torch.float64)
    add_outer(total, x, y)
    torch.testing.assert_close(total, x.T @ y)


@pytest.mark.skipif(not LEVELS, reason="needs the compiled extension")
def test_wrong_shapes_and_unknown_levels_are_refused():
    extension = cpu_extension()
    total, x = torch.zeros(4, 4, dtype=torch.float64).numpy(), torch.zeros(3, 5).double().numpy()
    with pytest.raises(ValueError, match="sum must be"):
        extension.add_outer(total, x, x, "portable", 1)
    with pytest.raises(ValueError, match="no level"):
        extension.add_outer(total, x[:, :4].copy(), x[:, :4].copy(), "sse9", 1)


@pytest.mark.parametrize("width", [1, 7, 512, 1100])
def test_the_symmetric_part_is_taken_in_place(width):
    matrix = random_rows(width, width)[0]
    expected = (matrix + matrix.T) / 2
    symmetrise(matrix)
    assert torch.equal(matrix, expected)
