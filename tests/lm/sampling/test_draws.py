"""Drawing tokens: numbers by position, the right distribution, and what rounding could change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import sample
from deltalens.lm.sampling import draws
from deltalens.lm.sampling.draws import Choice, choose, gumbels
from deltalens.lm.sampling.philox import philox, uniforms
from helpers.families import build, token_ids
from helpers.two_races import drawn, philox4x32, uniform

CPU = torch.device("cpu")
VOCABULARIES = [1, 2, 3, 30, 97, 170, 1000]


def numbers(rows: int, start: int = 0) -> Any:
    return np.arange(start, start + rows, dtype=np.uint64), np.zeros(rows, dtype=np.int64)


def chosen(logits: Tensor, temperature: float = 1.0, *, seed: int = 0, start: int = 0) -> Choice:
    """Row r from stream ``start`` + r, at step 0."""
    noise = gumbels(seed, *numbers(len(logits), start), logits.shape[1], CPU)
    return choose(logits, noise, temperature)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter: list[int], key: int, expected: str) -> None:
    """Those of Random123, by the paper's authors."""
    a, b, c, d = (torch.tensor([word]) for word in counter)
    found = " ".join(f"{int(word):08x}" for word in philox((a, b, c, d), key))
    words = philox4x32(counter, (key % 2**32, key // 2**32))
    assert found == expected == " ".join(f"{word:08x}" for word in words)


def test_numbers_are_those_of_their_position_alone() -> None:
    streams = [0, 5, 2**32 + 5, 2**64 - 1]
    steps = np.array([0, 3, 3, 599])
    for seed in (0, 7, 2**64 - 1):
        found = uniforms(seed, np.array(streams, dtype=np.uint64), steps, 11, CPU)
        for row, (stream, step) in enumerate(zip(streams, steps.tolist(), strict=True)):
            assert found[row].tolist() == [uniform(seed, stream, step, i) for i in range(11)]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_it_is_the_draw_as_documented(vocabulary: int, temperature: float) -> None:
    logits = 3 * torch.randn(60, vocabulary, generator=torch.Generator().manual_seed(0))
    found = chosen(logits, temperature, seed=9, start=40).tokens.tolist()
    rows = enumerate(logits.double().tolist())
    assert found == [drawn(row, 9, 40 + r, 0, temperature) for r, row in rows]
    assert vocabulary < 30 or len(set(found)) > 8


def test_a_model_s_tokens_are_drawn_so() -> None:
    """Every step by a whole pass over one row; the numbers and the choice in plain Python."""
    model = build("llama")
    model.generation_config.eos_token_id = None
    prompts = [token_ids(size, size) for size in (3, 9, 5)]
    streams = [4, 2**40, 9]
    found = sample(model, None, prompts, max_new_tokens=6, temperature=0.8, seed=3, streams=streams)
    for prompt, stream, row in zip(prompts, streams, found, strict=True):
        ids = list(prompt)
        for step in range(6):
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(drawn(logits.double().tolist(), 3, stream, step, 0.8))
        assert row == ids[len(prompt) :]


@pytest.mark.parametrize("apart", ["streams", "steps", "seeds"])
def test_tokens_follow_the_distribution(apart: str) -> None:
    """A few likely tokens, many rare ones, and a tail that is told apart by token id."""
    rows, vocabulary, seed = 6000, 50_257, 100
    logits = -1.1 * torch.arange(1, vocabulary + 1).float().log()
    logits = logits[torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))]
    same, counted = np.full(rows, 7, dtype=np.uint64), np.arange(rows)
    places = {
        "streams": lambda: gumbels(seed, counted.astype(np.uint64), 0 * counted, vocabulary, CPU),
        "steps": lambda: gumbels(seed, same, counted, vocabulary, CPU),
        "seeds": lambda: torch.cat(
            [gumbels(s, same[:1], counted[:1], vocabulary, CPU) for s in range(rows)]
        ),
    }
    noise = places[apart]()
    parts = [choose(logits.expand(len(part), -1), part, 1.0).tokens for part in noise.split(1000)]
    tokens = torch.cat(parts)
    probability = torch.softmax(logits.double(), 0)
    likely = probability * rows >= 10
    tail = torch.arange(vocabulary) * 20 // vocabulary
    group = torch.where(likely, 20 + likely.cumsum(0) - 1, tail)
    expected = torch.bincount(group, probability) * rows
    counts = torch.bincount(group[tokens], minlength=len(expected))
    assert expected.min() > 5
    chi_squared, degrees = float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1
    assert degrees > 60
    assert abs(chi_squared - degrees) < 4 * (2 * degrees) ** 0.5


def test_one_step_tells_nothing_of_the_next() -> None:
    logits = torch.zeros(1, 8).expand(16_000, -1)
    streams = np.arange(16_000, dtype=np.uint64)
    first, second = (
        choose(logits, gumbels(0, streams, np.full(16_000, step), 8, CPU), 1.0).tokens
        for step in (0, 1)
    )
    counts = torch.bincount(8 * first + second, minlength=64).double()
    chi_squared = float(((counts - 250) ** 2 / 250).sum())
    assert abs(chi_squared - 63) < 4 * (2 * 63) ** 0.5


def test_tokens_without_probability_are_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf, -torch.inf, -torch.inf]])
    assert set(chosen(logits.expand(500, -1)).tokens.tolist()) == {1, 3}
    assert set(chosen(logits.expand(500, -1), 0).tokens.tolist()) == {3}


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_no_logit_is_refused(wrong: float, temperature: float) -> None:
    logits = torch.zeros(3, 9)
    logits[1, 4] = wrong
    with pytest.raises(InputError, match="logits are NaN or infinite"):
        chosen(logits, temperature)


def test_tokens_are_chosen_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    whole = chosen(logits, 0.7)
    monkeypatch.setattr(draws, "_CHUNK", 100)
    assert all(map(torch.equal, chosen(logits, 0.7), whole))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_choice_that_rounding_could_change_is_doubtful(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    monkeypatch.setitem(draws.MARGIN, torch.float32, 1e-2)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 30, generator=generator)
    found = chosen(logits, temperature)
    changed = torch.zeros(4000, dtype=torch.bool)
    for _ in range(30):
        noisy = logits + 5e-3 * (2 * torch.rand(logits.shape, generator=generator) - 1)
        changed |= chosen(noisy, temperature).tokens != found.tokens
    assert 0 < changed.sum() < found.doubtful.sum() < 400
    assert found.doubtful[changed].all()
    assert not chosen(logits.bfloat16(), temperature).doubtful.any()


@pytest.mark.parametrize("vocabulary", [49_152, 262_144])
def test_doubt_is_rare_whatever_the_vocabulary(vocabulary: int) -> None:
    """Greatest logits of about 20, as language models have; both races, a margin of 2e-4 each."""
    logits = 4.5 * torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(0))
    found = [chosen(logits, start=8 * part).doubtful for part in range(250)]
    assert int(torch.cat(found).sum()) <= 5  # of 2000; 0.8 expected at most
