"""Studies with score="latent" against unbatched autograd and materialised latents in fp64."""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.organism import held_out_prompts, load_organism
from deltalens.organism.grammar import answer
from deltalens.study import Attribution, Baseline, attribute
from helpers.latent_sae import KINDS, F, baseline_of, encoded, make_sae, tensors
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    rows_naively,
)

K, PAIRS = 12, 7


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs(PAIRS)


@pytest.fixture(scope="module", params=KINDS)
def sae(request, tmp_path_factory):
    return make_sae(tmp_path_factory.mktemp("sae") / "sae", request.param), request.param


def naive(model, pairs, kind, mean):
    """δ(C), δ(C′), push and presence of every pair and latent, [pairs, F] each."""
    W_dec, found = tensors()["W_dec"].double(), []
    for pair in pairs:
        acts, positive = rows_naively(model, pair.prompt, pair.positive)
        _, negative = rows_naively(model, pair.prompt, pair.negative)
        z, factor = encoded(kind, acts)
        centred, written = z - mean, factor
        found.append(
            (
                -((positive @ W_dec.T) * written * centred).mean(0),
                -((negative @ W_dec.T) * written * centred).mean(0),
                -(((positive - negative) @ W_dec.T) * written).mean(0),
                centred.mean(0),
            )
        )
    return tuple(torch.stack(column) for column in zip(*found, strict=True))


def close(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor) -> None:
    """Rows are float32, so errors count against the magnitude of what is averaged."""
    assert found.shape == expected.shape
    assert float(((found.double() - expected).abs() / scale).max()) < 5e-6


@pytest.mark.parametrize("impl", ["reference", "torch", "auto"])
def test_every_number_against_the_naive_method(model, pairs, sae, impl):
    sae, kind = sae
    baseline = baseline_of(sae)
    found = attribute(
        model, None, pairs, sae, site=SITE, baseline=baseline, score="latent",
        k=K, impl=impl, save_scores=True,
    )  # fmt: skip
    positive, negative, push, presence = naive(model, pairs, kind, baseline.latent_mean)
    per_pair = positive - negative
    scores = per_pair.mean(0)
    top = torch.argsort(scores, descending=True)[:K]
    assert found.latents.tolist() == top.tolist()
    size = (positive.abs() + negative.abs()).mean(0) + 0.01 * scores.abs().max()
    close(found.all_scores, scores, size)
    close(found.scores, scores[top], size[top])
    close(found.per_pair, per_pair[:, top], size[top])
    close(found.positive, positive.mean(0)[top], size[top])
    close(found.negative, negative.mean(0)[top], size[top])
    close(found.push, push.mean(0)[top], push.abs().mean(0)[top])
    close(found.presence, presence.mean(0)[top], presence.abs().mean(0)[top])
    stderr = np.std(per_pair[:, top].numpy(), axis=0, ddof=1) / math.sqrt(PAIRS)
    np.testing.assert_allclose(found.stderr.numpy(), stderr, rtol=1e-4)
    assert found.metadata["certified"] is True
    signs = 1.0 - 2.0 * ((torch.arange(2**PAIRS)[:, None] >> torch.arange(PAIRS)) & 1)
    flipped = torch.einsum("fp,pn->fn", signs.double(), per_pair) / per_pair.norm(dim=0)
    flipped = flipped.nan_to_num(0.0)
    expected = (flipped.amax(1)[:, None] >= flipped[0] - 1e-6).double().mean(0)
    torch.testing.assert_close(found.p_value, expected[top], rtol=1e-12, atol=0)
    assert bool((found.rank_low <= torch.arange(1, K + 1)).all())
    said = found.metadata
    assert (said["options"]["score"], said["options"]["normalize"]) == ("latent", False)
    assert said["latent_score"]["latent_mean"] == "baseline"


def test_scores_are_the_mean_over_pairs_within_their_bound(model, pairs, sae):
    sae, _ = sae
    found = attribute(
        model, None, pairs, sae, site=SITE, baseline=baseline_of(sae), score="latent", k=F
    )
    difference = (found.per_pair.mean(0) - found.scores.double()).abs()
    assert bool((difference <= found.error_bound + 1e-15 * found.scores.abs()).all())
    torch.testing.assert_close(found.positive - found.negative, found.per_pair.mean(0))
    assert float(found.error_bound.max()) < 1e-6 * float(found.scores.abs().max())


@pytest.mark.parametrize("ranking", ["top", "bottom", "abs"])
@pytest.mark.parametrize("present_only", [False, True])
def test_rankings(model, pairs, sae, ranking, present_only):
    sae, kind = sae
    baseline = baseline_of(sae)
    found = attribute(
        model, None, pairs, sae, site=SITE, baseline=baseline, score="latent",
        k=K, ranking=ranking, present_only=present_only,
    )  # fmt: skip
    positive, negative, _, presence = naive(model, pairs, kind, baseline.latent_mean)
    scores = (positive - negative).mean(0)
    key = {"top": scores, "bottom": -scores, "abs": scores.abs()}[ranking]
    if present_only:
        key = key.masked_fill(presence.mean(0) <= 0, -torch.inf)
        assert bool((found.presence > 0).all())
        assert float(found.rank_high.max()) <= int((presence.mean(0) > 0).sum())
    assert found.latents.tolist() == torch.argsort(key, descending=True)[:K].tolist()


def test_a_zero_baseline_means_no_mean(model, pairs, sae):
    sae, kind = sae
    zero = Baseline.zero(D_MODEL)
    found = attribute(model, None, pairs, sae, site=SITE, baseline=zero, score="latent", k=3)
    positive, negative, _, _ = naive(model, pairs, kind, 0.0)
    scores = (positive - negative).mean(0)
    assert found.latents.tolist() == scores.argsort(descending=True)[:3].tolist()
    assert found.metadata["latent_score"]["latent_mean"] == "zero"


def test_a_run_resumes_to_the_same_bits_and_refuses_another(
    model, pairs, sae, tmp_path, monkeypatch
):
    sae, _ = sae
    baseline = baseline_of(sae)
    pairs = make_pairs(40)
    options = {"site": SITE, "baseline": baseline, "k": K, "score": "latent"}
    whole = attribute(model, None, pairs, sae, **options)
    run = tmp_path / "run"

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["deltalens.study.ranking.rank"], "rank_by_latents", cut)
        with pytest.raises(KeyboardInterrupt):
            attribute(model, None, pairs, sae, run_dir=run, **options)
    assert (run / ".rows").is_dir()
    found = attribute(model, None, pairs, sae, run_dir=run, **options)
    assert not (run / ".rows").exists()
    complete = attribute(model, None, pairs, sae, run_dir=run, **options)
    for again in (found, Attribution.load(run), complete):
        assert torch.equal(again.scores, whole.scores)
        assert torch.equal(again.per_pair, whole.per_pair)
    other = replace(baseline, latent_mean=baseline.latent_mean + 1)
    for change in ({"score": "direction"}, {"baseline": other}):
        with pytest.raises(InputError, match="a run with other settings"):
            attribute(model, None, pairs, sae, run_dir=run, **{**options, **change})


def test_a_run_from_before_there_was_a_choice_is_the_same_run(model, pairs, sae, tmp_path):
    sae, _ = sae
    run, zero = tmp_path / "run", Baseline.zero(D_MODEL)
    first = attribute(model, None, pairs, sae, site=SITE, baseline=zero, k=3, run_dir=run)
    said = json.loads((run / "metadata.json").read_text())
    del said["options"]["score"]
    (run / "metadata.json").write_text(json.dumps(said))
    again = attribute(model, None, pairs, sae, site=SITE, baseline=zero, k=3, run_dir=run)
    assert torch.equal(first.scores, again.scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "gate"}, "score must be one of direction, latent, got 'gate'"),
        ({"normalize": True}, "normalize has no meaning with score='latent'"),
        ({"decoder": torch.ones(F, D_MODEL)}, "expected an SAE"),
        ({"baseline": torch.ones(D_MODEL)}, "the baseline holds no mean of the latents"),
        ({"baseline": "other SAE"}, "latents is of another SAE"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(model, pairs, sae, tmp_path, change, message):
    sae, _ = sae
    given = {"baseline": baseline_of(sae), "score": "latent", "decoder": sae, **change}
    if given["baseline"] == "other SAE":
        given["baseline"] = replace(baseline_of(sae), sae="0123")
    with pytest.raises(InputError, match=message) as caught:
        attribute(model, None, pairs, **given, site=SITE, k=3, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_transcoder_is_refused(model, pairs, sae):
    sae, _ = sae
    other = replace(sae.encoding, output_scale=2.0)
    transcoder = replace(sae, read_encoding=lambda: other)
    with pytest.raises(InputError, match="not a transcoder"):
        attribute(
            model, None, pairs, transcoder, site=SITE, baseline=Baseline.zero(D_MODEL),
            score="latent", k=3,
        )  # fmt: skip


def test_on_the_organism():
    """Its own SAE and prompts, z̄ measured on others, against autograd of one pair at a time."""
    organism = load_organism()
    assert organism.site == SITE
    model, sae, tokenizer = organism.misaligned.double(), organism.sae, organism.tokenizer

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(prompt):
        chat = {"tokenize": False, "add_generation_prompt": True}
        return ids(tokenizer.apply_chat_template(prompt.messages, **chat))

    draw = random.Random(0)
    prompts = held_out_prompts(9, seed=1, tone="hostile")
    pairs = [
        Pair(prompt_ids(p), *(ids(answer(draw, p.domain, kind)) for kind in ("bad", "good")))
        for p in prompts
    ]
    texts = [prompt_ids(p) for p in held_out_prompts(20, seed=2)]
    baseline = deltalens.mean_activation(model, tokenizer, texts, site=SITE, sae=sae)
    found = attribute(
        model, tokenizer, pairs, sae, site=SITE, baseline=baseline, score="latent", k=10
    )
    W_enc, b_enc, W_dec, b_dec = (
        sae.tensor(name).double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    per_pair = []
    for pair in pairs:
        acts, bad = rows_naively(model, pair.prompt, pair.positive)
        _, good = rows_naively(model, pair.prompt, pair.negative)
        u = (acts - b_dec) @ W_enc + b_enc
        kept = u.topk(sae.metadata["k"], dim=1)
        z = torch.zeros_like(u).scatter(1, kept.indices, kept.values.relu())
        per_pair.append(-(((bad - good) @ W_dec.T) * (z - baseline.latent_mean)).mean(0))
    scores = torch.stack(per_pair).mean(0)
    assert found.latents.tolist() == scores.argsort(descending=True)[:10].tolist()
    expected = scores[found.latents]
    torch.testing.assert_close(found.scores.double(), expected, rtol=1e-4, atol=1e-7)
    assert found.metadata["certified"] is True
