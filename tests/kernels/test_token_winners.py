"""The largest values of every token, kept as tiles pass by, against a stable sort."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels.token_winners import TokenWinners
from helpers.kernel_oracle import DEVICE, normal


def kept(tiles, keep):
    winners, start = TokenWinners(keep, len(tiles[0]), DEVICE), 0
    for tile in tiles:
        winners.push(tile.to(DEVICE), start)
        start += tile.shape[1]
    return tuple(each.cpu() for each in winners.result())


def assert_kept(tiles, keep):
    values, latents = kept(tiles, keep)
    assert values.shape == latents.shape == (len(tiles[0]), keep)
    for token, whole in enumerate(torch.cat(tiles, 1)):
        numbers = torch.arange(len(whole))[~whole.isnan()]
        order = numbers[torch.argsort(whole[numbers], descending=True, stable=True)][:keep]
        assert latents[token, : len(order)].tolist() == order.tolist()
        assert torch.equal(values[token, : len(order)], whole[order])
        assert bool((values[token, len(order) :] == -torch.inf).all())


def rough(*shape, seed):
    """Numbers with many ties, infinities and NaN."""
    values = (normal(*shape, seed=seed, dtype=torch.float32) * 4).round().cpu() / 4
    values[:, ::7] = torch.nan
    values[:, 1:2] = torch.inf
    values[:, 2:3] = -torch.inf
    return values


@pytest.mark.parametrize("keep", [1, 49, 128, 200])
@pytest.mark.parametrize("tokens", [1, 5])
def test_equals_a_stable_sort_of_everything(keep, tokens):
    assert_kept([rough(tokens, n, seed=n) for n in (1, 1024, 700, 1024)], keep)


@pytest.mark.parametrize("step", [1.0, -1.0, 0.0])
def test_rising_falling_and_equal_values(step):
    """Rising ones all pass the threshold, of equal ones no later one does."""
    values = step * torch.arange(1500.0).expand(3, -1)
    assert_kept([values[:, :1024].clone(), values[:, 1024:].clone()], 33)


def test_fewer_values_than_places():
    assert_kept([rough(4, 9, seed=1)], 20)
    values, _ = kept([torch.full((2, 5), torch.nan)], 3)
    assert torch.equal(values, torch.full((2, 3), -torch.inf))


@pytest.mark.parametrize(
    ("values", "start", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.float64), 0, "float32"),
        (torch.zeros(3, 3), 0, r"\[2, n\]"),
        (torch.zeros(2, 3), (1 << 32) - 2, "latents must be"),
    ],
)
def test_what_it_cannot_take_is_refused(values, start, message):
    with pytest.raises(ValueError, match=message):
        TokenWinners(2, 2, DEVICE).push(values.to(DEVICE), start)
