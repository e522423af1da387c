"""Sums over segments of every latent, against extended precision."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from deltalens.engine.decoder import as_decoder
from deltalens.engine.resampling import tile_sums
from deltalens.engine.resampling.token_sums import TokenSums
from helpers.engine_oracle import IMPLS, Case, random_case

LENGTHS = (1, 7, 40, 3, 90, 16)  # of d_model 33: token form, and quadratic from 17 on
N, WIDTH = 150, 33


class Rows:
    """A decoder that is read a slice at a time, and counts how often."""

    def __init__(self, W_dec: torch.Tensor) -> None:
        self.n_latents, self.d_model, self.dtype = *W_dec.shape, W_dec.dtype
        self._W_dec, self.read = W_dec, 0

    def rows(self, start: int, stop: int) -> torch.Tensor:
        self.read += stop - start
        return self._W_dec[start:stop].clone()


def offsets() -> list[int]:
    return [0, *np.cumsum(LENGTHS).tolist()]


def sums_of(case: Case, decoder=None, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    options = {"impl": "auto", "normalize": False} | changes
    decoder = as_decoder(case.W_dec) if decoder is None else decoder
    tiles = list(TokenSums(case.rows(), offsets(), decoder, **options).tiles())
    assert [tile.start for tile in tiles] == [
        0, *np.cumsum([len(tile.sums) for tile in tiles])[:-1].tolist()
    ]  # fmt: skip
    return torch.cat([tile.sums for tile in tiles]), torch.cat([t.admitted for t in tiles])


def by_segment(values: np.ndarray) -> np.ndarray:
    parts = [values[:, start:stop].sum(1) for start, stop in pairwise(offsets())]
    return np.stack(parts, 1).astype(np.float64)


@pytest.mark.parametrize("impl", [*IMPLS, "triton"])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_segment_of_every_latent(impl, normalize):
    if impl == "triton":
        pytest.importorskip("triton")
    case = random_case(sum(LENGTHS), WIDTH, N)
    found, admitted = sums_of(case, impl=impl, normalize=normalize)
    exact, size = by_segment(case.terms()), by_segment(np.abs(case.terms()))
    if normalize:
        squares = case.W_dec.double().square().sum(1).numpy()[:, None]
        exact, size = exact / squares, size / squares
    assert found.shape == (N, len(LENGTHS))
    # A sum of products cancels within each product too: errors count against ‖x‖‖y‖‖d‖².
    assert np.abs(found.numpy() - exact).max() < 1e-5 * size.max()
    assert bool(admitted.all())


def test_what_does_not_fit_is_prepared_again_for_every_tile(monkeypatch):
    case = random_case(sum(LENGTHS), WIDTH, N)
    held, _ = sums_of(case)
    monkeypatch.setattr(tile_sums, "GROUP_BYTES", 100)
    monkeypatch.setattr(tile_sums, "_MOST_SUMS", 64 * len(LENGTHS))
    decoder = Rows(case.W_dec)
    again, _ = sums_of(case, decoder)
    torch.testing.assert_close(again, held, rtol=1e-9, atol=0)
    assert decoder.read == N


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_decoders(dtype):
    case = random_case(sum(LENGTHS), WIDTH, N, dtype=dtype)
    found, _ = sums_of(case)
    exact, size = by_segment(case.terms()), by_segment(np.abs(case.terms()))
    assert np.abs(found.numpy() - exact).max() < 1e-5 * size.max()


def test_rows_that_score_nothing_are_zero():
    """A zero row, a broken one, and one that is orthogonal to every gradient."""
    case = random_case(sum(LENGTHS), WIDTH, N)
    case.grads[:, 0] = 0
    case.W_dec[3], case.W_dec[5], case.W_dec[7] = 0, torch.nan, 0
    case.W_dec[7, 0] = 1.0
    case.W_dec[9, 4] = torch.inf
    found, admitted = sums_of(case, normalize=True)
    assert not found[[3, 5, 7, 9]].any()
    assert bool(found.isfinite().all())
    assert admitted.logical_not().nonzero()[:, 0].tolist() == [5, 9]


def test_rounding_errors_are_zero():
    """Products that are 0 in exact arithmetic but not in fp32."""
    case = random_case(sum(LENGTHS), WIDTH, N)
    direction = case.W_dec[11].double()
    along = case.grads.double() @ direction / direction.square().sum()
    case.grads.copy_((case.grads.double() - along[:, None] * direction).float())
    found, _ = sums_of(case, impl="torch")
    assert not found[11].any()
    assert bool(found[12].all())


def test_only_present_latents_are_admitted():
    case = random_case(sum(LENGTHS), WIDTH, N)
    presence = torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    _, admitted = sums_of(case, presence=presence)
    assert torch.equal(admitted, case.W_dec.double() @ presence > 0)
