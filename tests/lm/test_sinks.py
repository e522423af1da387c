"""Attention sinks: which tokens are left out, against norms worked out one sequence at a time."""

from __future__ import annotations

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair, Sifted, Sinks, activations, capture, resolve_site, without_sinks
from deltalens.lm.sinks import MEASURED_TOKENS, site_median
from deltalens.lm.tokenise import encode_pairs
from helpers.sink_model import SINK, SITE, VOCABULARY, make_sink_model


@pytest.fixture(scope="module")
def model():
    return make_sink_model()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(9, 30, (count,), generator=generator).tolist()
    return [
        (torch.randint(8, VOCABULARY, (length,), generator=generator)).tolist()
        for length in lengths
    ]


def made_pairs(count: int) -> list[Pair]:
    found = []
    for number, prompt in enumerate(prompts(count)):
        if number % 2:
            prompt[5] = SINK
        found.append(Pair(prompt, [9, 10, 11], [12, 13], id=f"p{number}"))
    return found


def norms(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return states[SITE + 1][0].float().norm(dim=1)


def test_the_first_token_and_massive_ones_are_not_counted(model):
    pairs = made_pairs(6)
    found, left_out = without_sinks(
        model, encode_pairs(model, None, pairs), resolve_site(model, SITE), Sinks()
    )
    sizes = [norms(model, pair.prompt) for pair in pairs]
    median = float(torch.cat([one[1:] for one in sizes]).median())
    for number, (pair, one) in enumerate(zip(found, sizes, strict=True)):
        assert one[0] > 50 * median  # the model has the sinks it was built with
        expected = [False] + [True] * (len(one) - 1)
        if number % 2:
            assert one[5] > 20 * median
            expected[5] = False
        assert pair.counted == expected
    assert left_out.median == pytest.approx(median, rel=1e-6)
    assert left_out.limit == pytest.approx(10 * median, rel=1e-6)
    assert (left_out.first, left_out.massive) == (6, 3)
    assert left_out.tokens == sum(map(len, sizes))


def test_the_rule_can_be_moved_and_switched_off(model):
    encoded = encode_pairs(model, None, made_pairs(4))
    site = resolve_site(model, SITE)
    kept, nothing = without_sinks(model, encoded, site, None)
    assert kept == encoded
    assert (nothing.first, nothing.massive, nothing.limit) == (0, 0, None)
    lax, left_out = without_sinks(model, encoded, site, Sinks(1e6))
    assert (left_out.first, left_out.massive) == (4, 0)
    assert all(pair.counted == [False] + [True] * (len(pair.counted) - 1) for pair in lax)
    known, _ = without_sinks(model, encoded, site, Sinks(), median=1e9)
    assert [pair.counted for pair in known] == [pair.counted for pair in lax]


def test_capture_leaves_them_out_by_default(model):
    pairs = made_pairs(4)
    every = list(capture(model, None, pairs, site=SITE, sinks=None))
    for pair, rows, all_rows in zip(
        pairs, capture(model, None, pairs, site=SITE), every, strict=True
    ):
        kept = [place for place, token in enumerate(pair.prompt) if place and token != SINK]
        for name in ("acts", "grad_positive", "grad_negative"):
            torch.testing.assert_close(
                getattr(rows, name), getattr(all_rows, name)[kept], rtol=1e-5, atol=1e-9
            )


def test_a_prompt_of_sinks_names_its_pair(model):
    encoded = encode_pairs(model, None, [*made_pairs(3), Pair([9, SINK], [10], [11], id="bad")])
    with pytest.raises(
        InputError, match=r"pair 'bad': no token of the prompt is left .*sinks=None"
    ):
        without_sinks(model, encoded, resolve_site(model, SITE), Sinks())


def test_a_stream_is_sifted_by_the_median_of_its_beginning(model):
    sequences = prompts(400, seed=3)
    sequences[390][4] = SINK
    sifted = Sifted(activations(model, iter(sequences), site=SITE), Sinks())
    found = list(sifted)
    assert [number for number, _, _ in found] == list(range(400))
    until, tokens = 0, 0
    while tokens < MEASURED_TOKENS:
        tokens += len(sequences[until])
        until += 1
    assert until < 300
    measured = torch.cat([norms(model, ids)[1:] for ids in sequences[:until]])
    assert sifted.median == pytest.approx(float(measured.median()), rel=1e-6)
    assert site_median(model, sequences, resolve_site(model, SITE)) == sifted.median
    for number, rows, kept in found:
        size = norms(model, sequences[number])
        torch.testing.assert_close(rows.norm(dim=1), size, rtol=1e-5, atol=1e-6)
        assert kept.tolist() == [False, *(size[1:] <= 10 * sifted.median).tolist()]
    assert not found[390][2][4]
    assert (sifted.left_out.first, sifted.left_out.massive) == (400, 1)
    assert sifted.left_out.tokens == sum(map(len, sequences))


def test_nothing_is_left_out_of_a_stream_without_a_rule(model):
    sifted = Sifted(activations(model, prompts(3), site=SITE), None)
    assert all(bool(kept.all()) for _, _, kept in sifted)
    assert sifted.left_out.limit is None
    assert list(Sifted([], Sinks())) == []


@pytest.mark.parametrize("times", [1.0, 0.0, -3.0, float("nan")])
def test_a_rule_below_the_median_is_refused(times):
    with pytest.raises(InputError, match="times_median must be above 1"):
        Sinks(times)
