"""Family-wise p-values and rank intervals: calibration, power, and what must not stand out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deltalens.engine.decoder import as_decoder
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.engine.resampling.token_sums import TokenSums
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.ranking import Ranking
from deltalens.study.significance import Significance, assess
from deltalens.study.significance.stability import resampling_weights

RANKINGS = {"top": Ranking(), "bottom": Ranking(largest=False), "abs": Ranking(absolute=True)}


def study(sums: torch.Tensor, name: str = "top", k: int = 10, **options) -> Significance:
    """Of Δ fp64 [n, pairs] of all latents."""
    ranking = RANKINGS[name]
    latents = ranking.key(sums.mean(1)).topk(k).indices
    tiles = [TileSums(0, sums, torch.ones(len(sums), dtype=torch.bool))]
    return assess(tiles, sums[latents].T, latents, len(sums), ranking, **options)


def null_sums(draw: torch.Generator, n: int, pairs: int) -> torch.Tensor:
    """Exchangeable completions: every pair's sign is a coin, its size shared by all latents that
    go together; latents' scales span five orders, and a few pairs dominate."""
    mixed = torch.randn(n, 40, generator=draw) @ torch.randn(40, pairs, generator=draw)
    noise = 3 * torch.randn(n, pairs, generator=draw)
    scales = torch.randn(n, 1, generator=draw).mul(2.5).exp()
    heavy = torch.randn(pairs, generator=draw).exp()
    signs = 1.0 - 2.0 * torch.randint(2, (pairs,), generator=draw)
    return ((mixed.square() - mixed + noise).abs() * scales * heavy * signs).double()


@pytest.mark.parametrize("name", ["top", "abs"])
def test_of_200_null_studies_one_in_twenty_has_a_latent_that_stands_out(name):
    """The number is binomial: beyond 20 of 200 at 5 % lies 1 in 1,000."""
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randint(8, 40, (200,), generator=draw).tolist()
    found = [study(null_sums(draw, 1200, count), name) for count in pairs]
    errors = sum(each.record["stand_out_of_all"] > 0 for each in found)
    assert 1 <= errors <= 20
    assert sum(each.record["stand_out"] > 0 for each in found) <= errors


def token_study(draw: torch.Generator, planted: float = 0.0) -> Significance:
    """4,096 latents, d_model 576, 24 pairs of 6 to 30 tokens, through the decoder."""
    n, width, pairs = 4096, 576, 24
    lengths = torch.randint(6, 30, (pairs,), generator=draw)
    offsets = [0, *lengths.cumsum(0).tolist()]
    tokens = offsets[-1]
    common = torch.randn(width, width, generator=draw) / width**0.5
    acts = torch.randn(tokens, width, generator=draw) @ common
    positive, negative = (torch.randn(tokens, width, generator=draw) @ common for _ in range(2))
    W_dec = torch.randn(n, width, generator=draw)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    # Where latent 77 is there, C is likelier and C′ less so.
    present = acts @ W_dec[77]
    gamma = positive - negative - planted * present[:, None] * W_dec[77]
    source = TokenRows(
        acts,
        gamma,
        torch.zeros(width, dtype=torch.float64),
        lengths.double().reciprocal().repeat_interleave(lengths),
    )
    sums = TokenSums(source, offsets, as_decoder(W_dec.bfloat16()), "auto", True)
    every = torch.cat([tile.sums for tile in sums.tiles()])
    latents = every.mean(1).topk(20).indices
    return assess(sums.tiles(), every[latents].T, latents, n, Ranking())


def test_null_studies_at_a_realistic_width():
    """Beyond 5 of 20 at 5 % lies 1 in 1,000 (1 in 3,000)."""
    draw = torch.Generator().manual_seed(1)
    assert sum(token_study(draw).record["stand_out_of_all"] > 0 for _ in range(20)) <= 5


def test_a_planted_latent_stands_out_alone():
    found = token_study(torch.Generator().manual_seed(2), planted=6.0)
    assert float(found.p_value[0]) == 1 / 1001
    assert found.record["stand_out"] == 1
    assert found.record["sentence"].startswith("1 of 20 ranked latents stands out (family-wise")
    assert float(found.rank_high[0]) <= 2


def test_small_effects_on_quiet_latents_count():
    """A latent far below the loudest in score has the smallest p: scores are heteroscedastic."""
    draw = torch.Generator().manual_seed(3)
    sums = torch.randn(2000, 60, generator=draw, dtype=torch.float64)
    sums[:20] *= 100
    sums[500] += 1.5
    found = study(sums, k=30)
    loud = study(sums, k=5)
    assert found.record["stand_out"] == 1
    assert loud.record["stand_out"] == 0
    assert "No ranked latent stands out" in loud.record["sentence"]
    assert "but 1 outside the ranking does: raise k" in loud.record["sentence"]


@pytest.mark.parametrize("name", RANKINGS)
def test_exact_enumeration_against_every_flip(name):
    draw = torch.Generator().manual_seed(14)
    sums = torch.randn(300, 8, generator=draw, dtype=torch.float64) + 0.5
    found = study(sums, name, k=300)
    signs = 1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    flipped = sums.numpy()[:, None] * signs  # [n, flips, pairs]
    t = flipped.mean(2) / (flipped.std(2, ddof=1) / np.sqrt(8))
    key = {"top": t, "bottom": -t, "abs": np.abs(t)}[name]
    expected = (key.max(0)[None] >= key[:, :1] * (1 - 1e-9)).mean(1)
    ranked = RANKINGS[name].key(sums.mean(1)).topk(300).indices
    np.testing.assert_allclose(found.p_value.numpy(), expected[ranked.numpy()], rtol=1e-12)
    assert found.record["exact"] is True
    assert found.record["flips"] == (128 if name == "abs" else 256)


def test_what_has_no_variance_or_nothing_at_all():
    sums = torch.zeros(50, 12, dtype=torch.float64)
    assert study(sums).p_value.tolist() == [1.0] * 10
    assert study(sums).record["stand_out_of_all"] == 0
    sums[4] = 1.0  # the same in every pair: all signs have to agree
    found = study(sums)
    assert float(found.p_value[0]) == 1 / 1001
    assert found.p_value[1:].tolist() == [1.0] * 9


def test_few_pairs_cannot_reach_5_per_cent():
    sums = torch.ones(20, 4, dtype=torch.float64)
    found = study(sums)
    assert found.p_value.tolist() == [1 / 16] * 10
    assert found.record["sentence"] == (
        "With 4 pairs no latent can stand out: the smallest possible family-wise p is 0.062 "
        "(over all 20 latents, all 16 sign flips of 4 pairs)."
    )
    assert study(torch.ones(20, 5, dtype=torch.float64)).record["stand_out"] == 10
    assert study(torch.ones(20, 5, dtype=torch.float64), "abs").record["stand_out"] == 0


@pytest.mark.parametrize(("pairs", "flips", "said"), [(1, 1000, "single pair"), (9, 0, "(0 sign")])
def test_what_is_not_tested_is_nan_and_reads_nothing(pairs, flips, said):
    found = assess(
        iter(lambda: 1 / 0, None),  # type: ignore[arg-type]
        torch.ones(pairs, 3, dtype=torch.float64),
        torch.arange(3),
        50,
        Ranking(),
        flips,
    )
    assert bool(torch.stack([found.p_value, found.rank_low, found.rank_high]).isnan().all())
    assert said in found.record["sentence"]


def test_rank_intervals_against_all_latents_resampled():
    draw = torch.Generator().manual_seed(5)
    sums = torch.randn(400, 30, generator=draw, dtype=torch.float64)
    sums[:5] += torch.tensor([4.0, 2.0, 1.0, 1.0, 0.7])[:, None]
    found = study(sums, k=8)
    order = sums.mean(1).topk(8).indices
    means = sums @ resampling_weights(30).T
    ranks = 1 + (means[None] > means[order][:, None]).sum(1)  # [k, resamples]
    assert (
        found.rank_low.tolist() == ranks.double().quantile(0.025, 1, interpolation="lower").tolist()
    )
    assert (
        found.rank_high.tolist()
        == ranks.double().quantile(0.975, 1, interpolation="higher").tolist()
    )
    assert found.rank_low[:2].tolist() == found.rank_high[:2].tolist() == [1, 2]
    assert float(found.rank_high[7]) > 20


def test_the_same_study_gives_the_same_numbers():
    sums = null_sums(torch.Generator().manual_seed(6), 500, 20)
    one, other = study(sums), study(sums)
    assert torch.equal(one.p_value, other.p_value)
    assert torch.equal(one.rank_high, other.rank_high)
    assert one.record == other.record
