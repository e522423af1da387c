"""Sums over segments by latents' own activations, against their encoders written out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.resampling import tile_sums
from deltalens.engine.resampling.latent_sums import LatentSums
from helpers.engine_oracle import IMPLS
from helpers.latent_oracle import LatentCase, latent_case, tied_case

OFFSETS = [0, 3, 4, 19, 30]
KINDS = ("relu", "threshold", "gated", "topk", "groupmax", "rescaled", "rescaled topk")


def of_segments(values: torch.Tensor) -> torch.Tensor:
    """[n_latents, segments] from [tokens, n_latents]."""
    return torch.stack([values[start:stop].sum(0) for start, stop in pairwise(OFFSETS)], 1)


def sums_of(case: LatentCase, impl: str, present_only: bool = False):
    problem = gated_problem(**case.arguments(), impl=impl)
    tiles = list(LatentSums(problem, OFFSETS, present_only).tiles())
    return torch.cat([tile.sums for tile in tiles]), torch.cat([t.admitted for t in tiles])


@pytest.mark.parametrize("impl", [*IMPLS, "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_segment_of_every_latent(kind, impl):
    if impl == "triton":
        pytest.importorskip("triton")
    case = latent_case(kind, OFFSETS[-1], 24, 96)
    found, admitted = sums_of(case, impl)
    error = (found.cpu() - of_segments(case.terms())).abs().amax(1)
    assert float((error / case.sizes()).max()) < 1e-5
    assert bool(admitted.all())


def test_latents_that_tie_for_a_token():
    case = tied_case("topk")
    global_tokens = len(case.inputs)
    problem = gated_problem(**case.arguments(), impl="torch")
    offsets = [0, 1, global_tokens // 2, global_tokens]
    found = torch.cat([t.sums for t in LatentSums(problem, offsets, False).tiles()])
    parts = [case.terms()[start:stop].sum(0) for start, stop in pairwise(offsets)]
    error = (found - torch.stack(parts, 1)).abs().amax(1)
    assert float((error / case.sizes()).max()) < 1e-5


def test_what_does_not_fit_is_prepared_again(monkeypatch):
    case = latent_case("threshold", OFFSETS[-1], 24, 200)
    held, _ = sums_of(case, "auto")
    monkeypatch.setattr(tile_sums, "GROUP_BYTES", 100)
    monkeypatch.setattr(tile_sums, "_MOST_SUMS", 64 * 4)
    again, _ = sums_of(case, "auto")
    torch.testing.assert_close(again, held, rtol=1e-9, atol=0)


def test_broken_rows_are_zero_and_presence_is_the_mean_of_segments():
    case = latent_case("relu", OFFSETS[-1], 24, 96)
    case.W_dec[5, 2], case.W_enc[9, 1] = torch.nan, torch.inf
    found, admitted = sums_of(case, "torch", present_only=True)
    assert not found[[5, 9]].any()
    assert bool(found.isfinite().all())
    spans = pairwise(OFFSETS)
    z = torch.stack([case.latents()[start:stop].mean(0) for start, stop in spans]).mean(0)
    expected = z > case.z_mean
    expected[[5, 9]] = False
    assert torch.equal(admitted, expected)
    assert bool(expected.any())
