"""Tokens that decide scores by themselves, planted and found."""

from __future__ import annotations

import pytest
import torch

from deltalens.lm import Pair
from deltalens.lm.text.encoded import EncodedPair
from deltalens.study.tokens.dominance import dominant_tokens, warn_of_sinks

LENGTH, K = 12, 6


def study(plant, pairs: int = 5):
    """Random contributions and norms about 1, with ``plant(pair, values, norms, ids)`` applied."""
    generator = torch.Generator().manual_seed(2)
    encoded, per_token, norms = [], [], []
    for number in range(pairs):
        ids = [100 * number + place for place in range(LENGTH)]
        values = torch.randn(LENGTH - 1, K, generator=generator)
        sizes = 1 + 0.1 * torch.rand(LENGTH - 1, generator=generator)
        plant(number, values, sizes, ids)
        counted = [False] + [True] * (LENGTH - 1)
        encoded.append(EncodedPair(Pair(ids, [1], [2]), ids, [1], [2], counted))
        per_token.append(values)
        norms.append(sizes)
    return encoded, per_token, norms


def described(plant):
    return [one.describe(None, [7, 8, 9, 10, 11, 12]) for one in dominant_tokens(*study(plant))]


def test_nothing_is_found_where_nothing_dominates():
    assert described(lambda *_: None) == []


def test_one_place_of_all_prompts():
    def plant(number, values, norms, ids):
        values[0, [1, 4]] = 60.0  # place 1: place 0 is not counted
        norms[0] = 25.0

    (found,) = described(plant)
    assert (found["position"], found["token"], found["latents"]) == (1, None, [8, 11])
    assert found["norm"] == pytest.approx(25 / 1.05, rel=0.05)
    with pytest.warns(UserWarning, match=r"position 1 of the prompts, of \d\d times the"):
        warn_of_sinks([found], K)


def test_one_token_wherever_it_is():
    def plant(number, values, norms, ids):
        ids[2 + number] = 55
        values[1 + number, 2] = -60.0
        norms[1 + number] = 25.0

    found = described(plant)
    assert [(one["position"], one["token"], one["latents"]) for one in found] == [(None, "55", [9])]
    with pytest.warns(UserWarning, match=r"token '55', of .* 1 of 6 latents \(9\)"):
        warn_of_sinks(found, K)


def test_an_ordinary_token_is_recorded_and_not_warned_of():
    def plant(number, values, norms, ids):
        values[-1, 0] = 60.0

    (found,) = described(plant)
    assert found["norm"] < 1.2
    warn_of_sinks([found], K)  # a warning would be an error


def test_shares_are_of_sums_without_signs():
    """A latent whose score cancels over tokens is not decided by one that is small beside them."""

    def plant(number, values, norms, ids):
        values[:, 0] = 0.0
        values[3, 0], values[4, 0], values[5, 0] = 10.0, -10.0, 1.0

    assert described(plant) == []


def test_short_prompts_say_nothing():
    encoded, per_token, norms = study(lambda *_: None, pairs=2)
    assert dominant_tokens(encoded, [v[:3] for v in per_token], [n[:3] for n in norms]) == []
    assert dominant_tokens([], [], []) == []
