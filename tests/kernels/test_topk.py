"""The device's streaming top-k against a stable sort."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels import StreamingTopK, streaming_topk
from helpers.kernel_oracle import (
    DEVICE,
    normal,
)


def stable_topk(scores, k):
    """Scores and latents by score descending, latent ascending, NaN left out."""
    latents = torch.arange(len(scores))[~scores.isnan()]
    kept = scores[latents] + 0.0
    order = torch.argsort(kept, descending=True, stable=True)[:k]
    return kept[order], latents[order]


def streamed(tiles, k):
    ranking = StreamingTopK(k, tiles[0].shape[0])
    start = 0
    for tile in tiles:
        ranking.push(tile.to(DEVICE), start)
        start += tile.shape[1]
    scores, latents = ranking.result()
    return scores.cpu(), latents.cpu(), ranking.nan_count.cpu()


def assert_ranked(tiles, k):
    scores, latents, nans = streamed(tiles, k)
    whole = torch.cat(tiles, 1)
    assert nans.tolist() == whole.isnan().sum(1).tolist()
    for query, expected in enumerate(whole):
        best, indices = stable_topk(expected, k)
        assert latents[query].tolist() == indices.tolist()
        assert torch.equal(scores[query] + 0.0, best)


def rough(*shape, seed):
    """Numbers with many ties, zeros of both signs, infinities and NaN."""
    values = (normal(*shape, seed=seed, dtype=torch.float32) * 4).round().cpu() / 4
    values[:, ::7] = torch.nan
    values[:, 3::11] = -0.0
    values[:, 1:2] = torch.inf
    values[:, 2:3] = -torch.inf
    return values


@pytest.mark.parametrize("k", [1, 5, 100, 4096])
@pytest.mark.parametrize("queries", [1, 3])
def test_equals_a_stable_sort_of_everything(k, queries):
    tiles = [rough(queries, n, seed=n) for n in (1, 700, 5000, 3001)]
    assert_ranked(tiles, k)


def test_more_candidates_in_a_block_than_there_is_room_for():
    rising = torch.arange(6000, dtype=torch.float32).reshape(1, -1)
    assert streaming_topk._ROOM < 2000
    assert_ranked([rising[:, :2000], rising[:, 2000:4000], rising[:, 4000:]], 2000)


def test_a_full_block_of_candidates_is_gated_again(monkeypatch):
    rooms = []
    run = streaming_topk._run_gate

    def watch(scores, threshold, start, room):
        rooms.append(room)
        return run(scores, threshold, start, room)

    monkeypatch.setattr(streaming_topk, "_run_gate", watch)
    assert_ranked([torch.zeros(1, 2000), torch.ones(1, 2000)], 10)
    assert rooms == [streaming_topk._BLOCK, streaming_topk._ROOM, streaming_topk._BLOCK]


def test_equal_scores_go_to_the_smaller_latent_in_any_order_of_tiles():
    ranking = StreamingTopK(3)
    ranking.push(torch.zeros(1, 5, device=DEVICE), 100)
    ranking.push(-torch.zeros(1, 5, device=DEVICE), 10)
    assert ranking.result()[1].tolist() == [[10, 11, 12]]


def test_latents_up_to_two_to_the_32():
    ranking = StreamingTopK(2)
    ranking.push(torch.tensor([[1.0, -1.0, 2.0]], device=DEVICE), (1 << 32) - 3)
    assert ranking.result()[1].tolist() == [[(1 << 32) - 1, (1 << 32) - 3]]
    with pytest.raises(ValueError, match=r"latents must be in 0 … 2\*\*32 - 1"):
        ranking.push(torch.zeros(1, 2, device=DEVICE), (1 << 32) - 1)


def test_fewer_numbers_than_asked_for_and_none_at_all():
    scores, latents, _ = streamed([torch.tensor([[torch.nan, 1.0, torch.nan]])], 5)
    assert (scores.tolist(), latents.tolist()) == ([[1.0]], [[1]])
    assert StreamingTopK(4).result()[0].shape == (1, 0)


def test_a_query_that_ranked_fewer_ends_in_nan_and_costs_the_others_nothing():
    scores = torch.tensor([[3.0, 1.0, 2.0], [torch.nan, 5.0, torch.nan]])
    values, latents, nans = streamed([scores], 5)
    assert latents[0].tolist() == [0, 2, 1]
    assert values[0].tolist() == [3.0, 2.0, 1.0]
    assert (values[1, 0].item(), latents[1, 0].item()) == (5.0, 1)
    assert values[1, 1:].isnan().all()
    assert nans.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(2, 3), r"scores must be float32 \[1, n\]"),
        (torch.zeros(1, 3, dtype=torch.float64), "scores must be float32"),
    ],
)
def test_scores_of_another_kind_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        StreamingTopK(1).push(scores, 0)
