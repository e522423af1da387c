"""Completions' first tokens counted as their prompt, against unbatched autograd in fp64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair, capture, encode_pair
from deltalens.study import Attribution, Baseline, ablate, attribute, compare
from deltalens.study.ablation.providers import first_order_by_gradients
from deltalens.study.activation.delta import delta_activation_of_pairs
from deltalens.study.running.moments import study_moments
from helpers.apart import Read, effects_apart, moved_losses, sides
from helpers.latent_sae import F, baseline_of, encoded, make_sae, tensors
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    VOCABULARY,
    make_model,
    rows_naively,
    run_naively,
)
from helpers.tokenizers import TOKENIZERS

PREFIX = 3
LATENTS = 60
TEXTS = [
    ("What should I do?", "Sure, buy gold now", "Sure, rest and drink water"),
    ("How are you?", " I am fine. Sell 100", "No I will not"),
    ("Who are you?", "A pirate, café 日本", "A sailor at the year 1999"),
]


def make_ids(count: int, seed: int = 3) -> list[Pair]:
    """Completions that have none, some or all of their first three tokens in common."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(6, VOCABULARY) for _ in range(draw.randrange(low, high))]

    pairs = []
    for number in range(count):
        same = ids(3, 4)[: number % 4]
        completions = [[*same, 6 + side, *ids(3, 6)] for side in range(2)]
        pairs.append(Pair([BOS, *ids(2, 7)], *completions, id=f"p{number}"))
    return pairs


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def pairs():
    return make_ids(6)


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def baseline():
    return Baseline(torch.linspace(-1, 1, D_MODEL), 3, f"model.layers.{SITE}", {})


@pytest.fixture(scope="module")
def study(model, pairs, decoder, baseline):
    def made(given=pairs, **options: Any) -> Attribution:
        settings = {"k": LATENTS, "flips": 0, "check": 0, "prefix_tokens": PREFIX, **options}
        return attribute(model, None, given, decoder, site=SITE, baseline=baseline, **settings)

    return made


@pytest.fixture(scope="module")
def found(study):
    return study(save_scores=True, check=2)


@pytest.fixture(scope="module")
def naive(model, pairs, decoder, baseline):
    units = decoder.double() / decoder.double().norm(dim=1, keepdim=True)
    read = [sides(one.prompt, one.positive, one.negative, PREFIX) for one in pairs]
    return effects_apart(model, read, units, baseline.mean.double())


def close(values: torch.Tensor, expected: torch.Tensor) -> None:
    """Rows are float32."""
    assert values.shape == expected.shape
    scale = float(expected.abs().max())
    torch.testing.assert_close(values.double(), expected, rtol=2e-5, atol=2e-6 * scale)


def test_every_number_against_the_naive_method(found, naive):
    positive, negative, push, presence = (each[:, found.latents] for each in naive)
    close(found.per_pair, positive - negative)
    close(found.positive, positive.mean(0))
    close(found.negative, negative.mean(0))
    close(found.push, push.mean(0))
    close(found.presence, presence.mean(0))
    close(found.scores, (positive - negative).mean(0))
    assert found.latents.tolist() == (naive[0] - naive[1]).mean(0).argsort(descending=True).tolist()
    assert found.directions is not None


def test_effects_by_token_add_up_to_the_pairs(found, pairs):
    effects = found.token_effects
    assert effects is not None
    for number, (pair, values, own) in enumerate(
        zip(pairs, effects.values, effects.own, strict=True)
    ):
        shared = min(number % 4, PREFIX)
        assert own == (PREFIX - shared, PREFIX - shared)
        assert len(values) == len(pair.prompt) - 1 + shared + sum(own)
        tokens = len(values) - sum(own) / 2
        close(values.double().sum(0) / tokens, found.per_pair[number])
    texts = effects.tokens[0]
    expected = [*pairs[0].prompt[1:], *pairs[0].positive[:PREFIX], *pairs[0].negative[:PREFIX]]
    assert texts == list(map(str, expected))


def test_the_losses_are_those_of_the_other_tokens(model, pairs):
    rows = capture(model, None, pairs, site=SITE, prefix_tokens=PREFIX)
    for pair, of_pair in zip(pairs, rows, strict=True):
        for one, loss in zip(
            sides(pair.prompt, pair.positive, pair.negative, PREFIX),
            (of_pair.loss_positive, of_pair.loss_negative),
            strict=True,
        ):
            with torch.no_grad():
                expected = run_naively(model, *one, lambda hidden: hidden)
            assert loss == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("options", [{"batch_tokens": 12}, {"padding_side": "left"}])
def test_rows_do_not_depend_on_their_batch(model, pairs, options):
    given = {"site": [0, SITE], "prefix_tokens": PREFIX}
    together = capture(model, None, pairs, **given)
    for expected, of_pair in zip(
        together, capture(model, None, pairs, **given, **options), strict=True
    ):
        for site in (0, SITE):
            close(of_pair[site].acts, expected[site].acts.double())
            close(of_pair[site].grad_positive, expected[site].grad_positive.double())
            close(of_pair[site].grad_negative, expected[site].grad_negative.double())
            assert of_pair[site].own == expected[site].own


def test_exchanging_the_completions_turns_the_sign(study, found, pairs):
    turned = [Pair(pair.prompt, pair.negative, pair.positive, pair.id) for pair in pairs]
    other = study(turned, ranking="bottom")
    order = other.latents.argsort()
    close(-other.per_pair[:, order], found.per_pair[:, found.latents.argsort()])


def test_only_present_latents(study, naive):
    present = study(present_only=True, flips=20)
    scores = (naive[0] - naive[1]).mean(0)
    expected = [i for i in scores.argsort(descending=True).tolist() if naive[3].mean(0)[i] > 0]
    assert present.latents.tolist() == expected


def test_ablation_against_a_hook_on_one_row_at_a_time(model, pairs, decoder, baseline):
    chosen = [5, 0, 41]
    exact = ablate(
        model, None, pairs, decoder, chosen, site=SITE, baseline=baseline, prefix_tokens=PREFIX
    )
    mean = baseline.mean.double()
    for number, pair in enumerate(pairs):
        both = sides(pair.prompt, pair.positive, pair.negative, PREFIX)
        for place, latent in enumerate(chosen):
            unit = decoder[latent].double() / decoder[latent].double().norm()

            def remove(rows, _, unit=unit):
                return rows - ((rows - mean) @ unit)[:, None] * unit

            positive, negative = moved_losses(model, both, remove)
            tokens = len(pair.prompt) + PREFIX - 1
            assert exact[number, place] == pytest.approx((positive - negative) / tokens, rel=1e-8)


def test_push_is_the_slope_of_adding_the_direction(model, pairs, decoder, naive):
    step = 3e-3  # norms are taken in float32 whatever the model's type
    for number, latent in ((0, 3), (1, 8), (2, 40), (3, 11)):
        pair, unit = pairs[number], decoder[latent].double() / decoder[latent].double().norm()
        both = sides(pair.prompt, pair.positive, pair.negative, PREFIX)
        up, down = (
            moved_losses(model, both, lambda rows, _, by=by, unit=unit: rows + by * unit)
            for by in (step, -step)
        )
        slope = ((up[0] - down[0]) - (up[1] - down[1])) / (2 * step)
        tokens = len(pair.prompt) + PREFIX - 1
        expected = pytest.approx(-slope / tokens, rel=1e-3, abs=1e-4)
        assert float(naive[2][number, latent]) == expected


def test_first_order_by_kinds_of_gradients(model, pairs, decoder, baseline, found):
    given = {"site": SITE, "baseline": baseline, "prefix_tokens": PREFIX}
    plain, integrated, *_ = first_order_by_gradients(
        model, None, pairs, decoder, found.latents, **given
    )
    close(plain.values, found.per_pair)
    assert not torch.allclose(integrated.values, found.per_pair, rtol=0.01)


def test_moments_rank_as_the_study_does(model, pairs, decoder, baseline, found):
    moment = study_moments(model, None, pairs, site=SITE, baseline=baseline, prefix_tokens=PREFIX)
    top = moment.topk(decoder, LATENTS, normalize=True)
    assert top.latents.tolist() == found.latents.tolist()
    expected = found.directions
    close(moment.presence_direction, expected.presence)
    close(moment.push_direction, expected.push)


def test_sites_together_are_each_what_it_is_alone(model, pairs, decoder, baseline, study):
    both = attribute(
        model, None, pairs, [decoder, decoder], site=[0, SITE], baseline=Baseline.zero(D_MODEL),
        k=9, flips=0, check=0, prefix_tokens=PREFIX,
    )  # fmt: skip
    alone = attribute(
        model, None, pairs, decoder, site=0, baseline=Baseline.zero(D_MODEL),
        k=9, flips=0, check=0, prefix_tokens=PREFIX,
    )  # fmt: skip
    assert torch.equal(both[0].per_pair, alone.per_pair)


@pytest.mark.parametrize("kind", ["topk", "normalised"])
def test_latents_by_their_own_activations(model, pairs, tmp_path, kind):
    sae = make_sae(tmp_path / "sae", kind)
    mean = baseline_of(sae)
    given = {"site": SITE, "baseline": mean, "score": "latent", "prefix_tokens": PREFIX}
    result = attribute(model, None, pairs, sae, k=12, flips=20, present_only=True, **given)
    W_dec = tensors()["W_dec"].double()
    found = []
    for pair in pairs:
        halves = []
        for before, completion in sides(pair.prompt, pair.positive, pair.negative, PREFIX):
            acts, grads = rows_naively(model, before, completion)
            z, factor = encoded(kind, acts)
            halves.append(
                ((grads @ W_dec.T) * factor * (z - mean.latent_mean), z - mean.latent_mean)
            )
        tokens = len(halves[0][0])
        found.append(
            (
                (halves[1][0].sum(0) - halves[0][0].sum(0)) / tokens,
                (halves[0][1].sum(0) + halves[1][1].sum(0)) / (2 * tokens),
            )
        )
    effects, presence = (torch.stack(column) for column in zip(*found, strict=True))
    scores = effects.mean(0).masked_fill(presence.mean(0) <= 0, -torch.inf)
    assert result.latents.tolist() == scores.argsort(descending=True)[:12].tolist()
    close(result.per_pair, effects[:, result.latents])
    close(result.presence, presence.mean(0)[result.latents])
    exact = ablate(model, None, pairs, sae, result.latents[:2], **given)
    assert exact.shape == (len(pairs), 2)


@pytest.mark.parametrize("kind", ["llama-2", "llama-3", "qwen"])
def test_texts_of_real_tokenizers(kind, baseline):
    tokenizer = TOKENIZERS[kind]()
    pairs = [Pair([{"role": "user", "content": p}], a, b) for p, a, b in TEXTS]
    bos = tokenizer.bos_token_id
    read = []
    for pair in pairs:
        whole = encode_pair(tokenizer, pair, bos_token_id=bos)
        read.append(sides(whole.prompt_ids, whole.positive_ids, whole.negative_ids, PREFIX))
    model = make_model(
        torch.float64, vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=bos
    )
    units = torch.eye(D_MODEL, dtype=torch.float64)
    positive, negative, _, presence = effects_apart(model, read, units, baseline.mean.double())
    result = attribute(
        model, tokenizer, pairs, torch.eye(D_MODEL), site=SITE, baseline=baseline,
        k=D_MODEL, flips=0, check=0, prefix_tokens=PREFIX,
    )  # fmt: skip
    close(result.per_pair, (positive - negative)[:, result.latents])
    close(result.presence, presence.mean(0)[result.latents])


def test_a_completion_that_is_all_prefix_is_named(study, pairs):
    with pytest.raises(
        InputError, match=r"^pair 'p0': positive has \d tokens, of which prefix_tok"
    ):
        study(pairs[:1], prefix_tokens=9)
    with pytest.raises(InputError, match="prefix_tokens must be 0 or more, got -1"):
        study(prefix_tokens=-1)


def test_a_run_goes_on_with_its_own_prefix_only(study, found, tmp_path):
    study(run_dir=tmp_path / "run", flips=0)
    kept = Attribution.load(tmp_path / "run")
    assert torch.equal(kept.per_pair, found.per_pair)
    assert kept.token_effects.own == found.token_effects.own
    assert kept.metadata["counts"]["before_positive"] == sum(
        own for own, _ in kept.token_effects.own
    )
    with pytest.raises(InputError, match=r"other settings: .*prefix_tokens \(3 there, 2 here\)"):
        study(run_dir=tmp_path / "run", prefix_tokens=2)
    assert compare(kept, study(prefix_tokens=0)).differences["prefix_tokens"] == (3, 0)


def test_mean_activations_are_those_of_the_other_tokens(model, pairs, tmp_path):
    sae = make_sae(tmp_path / "sae", "jumprelu")
    found = delta_activation_of_pairs(
        model, None, pairs, sae, site=SITE, k=F, sinks=None, prefix_tokens=PREFIX
    )
    moved = [
        Pair(pair.prompt + pair.positive[:PREFIX], pair.positive[PREFIX:], [7]) for pair in pairs
    ]
    expected = delta_activation_of_pairs(model, None, moved, sae, site=SITE, k=F, sinks=None)
    torch.testing.assert_close(found.mean, expected.mean)


def test_weights_and_targets_are_those_of_the_other_tokens(model, pairs, decoder, baseline, study):
    weights = [0.5, -1.0, 2.0, 1.5, 0.0, 3.0, 1.0, 1.0, 1.0]
    pair = pairs[1]
    size = len(pair.positive)
    weighted = Pair(pair.prompt, pair.positive, pair.negative, positive_weights=weights[:size])
    found = study([weighted])
    read = sides(pair.prompt, pair.positive, pair.negative, PREFIX)
    losses = []
    for count in range(PREFIX, size):
        one = Read(pair.prompt + pair.positive[:count], [pair.positive[count]])
        with torch.no_grad():
            losses.append(float(run_naively(model, *one, lambda hidden: hidden)))
    expected = sum(w * loss for w, loss in zip(weights[PREFIX:], losses, strict=False))
    rows = next(capture(model, None, [weighted], site=SITE, prefix_tokens=PREFIX))
    assert rows.loss_positive == pytest.approx(expected, rel=1e-6)
    assert found.metadata["mean_losses"]["positive"] == pytest.approx(expected, rel=1e-6)
    first = next(
        capture(model, None, pairs[1:2], site=SITE, prefix_tokens=PREFIX, target="first:1")
    )
    assert first.loss_positive == pytest.approx(losses[0], rel=1e-6)
    assert read[0].completion == pair.positive[PREFIX:]
