from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deltalens.engine import attribution_topk
from deltalens.errors import InputError
from deltalens.lm import Pair, capture
from deltalens.study import Attribution, Baseline, attribute
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    VOCABULARY,
    effects_naively,
    make_model,
    make_pairs,
    make_tokenizer,
    run_naively,
)

N_LATENTS, K, PAIRS = 150, 12, 7


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs(PAIRS)


@pytest.fixture(scope="module")
def decoder():
    draw = torch.Generator().manual_seed(5)
    rows = torch.randn(N_LATENTS, D_MODEL, generator=draw)
    return rows * torch.rand(N_LATENTS, 1, generator=draw).mul(3)


@pytest.fixture(scope="module")
def baseline():
    mean = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return Baseline(mean, 10, f"model.layers.{SITE}", {"source": "test"})


def naive(model, pairs, decoder, baseline, normalize):
    rows = decoder.double()
    rows = rows / rows.norm(dim=1, keepdim=True) if normalize else rows
    return effects_naively(model, pairs, rows, baseline.mean)


def close(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor) -> None:
    """Rows are float32, so errors count against the magnitude of what is averaged."""
    assert found.shape == expected.shape
    assert float(((found.double() - expected).abs() / scale).max()) < 1e-6


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("impl", ["reference", "torch", "auto"])
def test_every_number_against_the_naive_method(model, pairs, decoder, baseline, normalize, impl):
    found = attribute(
        model, None, pairs, decoder, site=SITE, baseline=baseline,
        k=K, normalize=normalize, impl=impl, save_scores=True,
    )  # fmt: skip
    positive, negative, push, presence = naive(model, pairs, decoder, baseline, normalize)
    per_pair = positive - negative
    scores = per_pair.mean(0)
    top = torch.argsort(scores, descending=True)[:K]
    assert found.latents.tolist() == top.tolist()
    scale = (positive.abs() + negative.abs()).mean(0)
    close(found.all_scores, scores, scale)
    scale = scale[top]
    close(found.scores, scores[top], scale)
    close(found.per_pair, per_pair[:, top], (positive.abs() + negative.abs())[:, top] + 1e-3)
    close(found.positive, positive.mean(0)[top], scale)
    close(found.negative, negative.mean(0)[top], scale)
    close(found.push, push.mean(0)[top], push.abs().mean(0)[top])
    close(found.presence, presence.mean(0)[top], presence.abs().mean(0)[top])
    stderr = np.std(per_pair[:, top].numpy(), axis=0, ddof=1) / math.sqrt(PAIRS)
    np.testing.assert_allclose(found.stderr.numpy(), stderr, rtol=1e-4)
    assert found.metadata["certified"] is True


def test_scores_are_the_mean_over_pairs_within_their_bound(model, pairs, decoder, baseline):
    found = attribute(model, None, pairs, decoder, site=SITE, baseline=baseline, k=N_LATENTS)
    difference = (found.per_pair.mean(0) - found.scores.double()).abs()
    assert bool((difference <= found.error_bound + 1e-15 * found.scores.abs()).all())
    torch.testing.assert_close(found.positive - found.negative, found.per_pair.mean(0))
    assert float(found.error_bound.max()) < 1e-6 * float(found.scores.abs().max())


@pytest.mark.parametrize("ranking", ["top", "bottom", "abs"])
@pytest.mark.parametrize("present_only", [False, True])
def test_rankings(model, pairs, decoder, baseline, ranking, present_only):
    found = attribute(
        model, None, pairs, decoder, site=SITE, baseline=baseline,
        k=K, ranking=ranking, present_only=present_only,
    )  # fmt: skip
    positive, negative, _, presence = naive(model, pairs, decoder, baseline, True)
    scores = (positive - negative).mean(0)
    key = {"top": scores, "bottom": -scores, "abs": scores.abs()}[ranking]
    if present_only:
        key = key.masked_fill(presence.mean(0) <= 0, -torch.inf)
        assert bool((found.presence > 0).all())
    assert found.latents.tolist() == torch.argsort(key, descending=True)[:K].tolist()


def test_mean_loss_and_float32(pairs, decoder, baseline):
    """Mean loss is the sum loss of each completion over its length; fp32 agrees with fp64."""
    model = make_model()
    found = attribute(
        model, None, pairs, decoder, site=SITE, baseline=baseline, k=N_LATENTS, loss="mean"
    )
    positive, negative, _, _ = naive(make_model(torch.float64), pairs, decoder, baseline, True)
    lengths = torch.tensor([[len(pair.positive), len(pair.negative)] for pair in pairs])
    scores = (positive / lengths[:, :1] - negative / lengths[:, 1:]).mean(0)
    scale = (positive.abs() + negative.abs()).mean(0)[found.latents]
    assert float(((found.scores - scores[found.latents]).abs() / scale).max()) < 1e-4


def test_integrated_gradients_start_at_the_baseline(model, pairs, decoder, baseline):
    options = {"site": SITE, "gradients": "integrated", "steps": 3, "sinks": None}
    found = attribute(model, None, pairs, decoder, baseline=baseline, k=K, check=0, **options)
    rows = capture(model, None, pairs, baseline=baseline.mean, **options)
    units = torch.nn.functional.normalize(decoder.double(), dim=1)
    deltas = [
        -(
            ((row.grad_positive - row.grad_negative).double() @ units.T)
            * ((row.acts.double() - baseline.mean) @ units.T)
        ).mean(0)
        for row in rows
    ]
    scores = torch.stack(deltas).mean(0)
    torch.testing.assert_close(found.scores.double(), scores[found.latents], rtol=1e-4, atol=1e-9)


def test_text_pairs_and_losses(model, decoder, baseline):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    pairs = [Pair("w1 w2 w3", "w4", "w5 w6"), Pair("w9 w8", "w7", "w1")]
    ids = [
        Pair(tokenizer(pair.prompt)["input_ids"], *(
            tokenizer(side, add_special_tokens=False)["input_ids"]
            for side in (pair.positive, pair.negative)
        ))
        for pair in pairs
    ]  # fmt: skip
    found = attribute(model, tokenizer, pairs, decoder, site=SITE, baseline=baseline, k=3)
    same = attribute(model, None, ids, decoder, site=SITE, baseline=baseline, k=3)
    assert torch.equal(found.scores, same.scores)
    assert found.lens[0].promotes[0].text.startswith(("w", "<", "user", "assistant", "system"))
    with torch.no_grad():
        losses = [float(run_naively(model, p.prompt, p.positive, lambda h: h)) for p in ids]
    assert found.metadata["mean_losses"]["positive"] == pytest.approx(sum(losses) / 2, rel=1e-9)
    assert found.metadata["counts"] == {
        "pairs": 2,
        "prompt_tokens": 5,
        "left_out": 0,
        "latents": N_LATENTS,
    }


def test_one_pair_has_no_standard_error(model, pairs, decoder, baseline):
    found = attribute(model, None, pairs[:1], decoder, site=SITE, baseline=baseline, k=3)
    assert bool(found.stderr.isnan().all())
    assert bool(found.scores.isfinite().all())


def test_metadata_names_what_was_used(model, pairs, decoder, baseline):
    class Sae:
        W_dec, path, format, site, model_name = decoder, "/d/sae", "bare", None, "m"
        fingerprint = "sha256:abc"

    found = attribute(
        model, None, pairs, Sae(), site=SITE, baseline=baseline, k=3, metadata={"seed": 4}
    )
    record = found.metadata
    assert record["sae"] == {
        "path": "/d/sae", "format": "bare", "model_name": "m",
        "n_latents": N_LATENTS, "d_model": D_MODEL, "dtype": "torch.float32",
    }  # fmt: skip
    assert record["fingerprints"]["sae"] == "sha256:abc"
    assert record["seed"] == 4
    assert record["options"]["k"] == 3
    assert record["options"]["loss"] == "sum"
    assert record["model"]["dtype"] == "torch.float64"
    assert {"python", "torch", "transformers", "deltalens"} <= record["versions"].keys()
    assert record["timings"]["capture_s"] > 0
    assert record["command"]


# A planted latent: the prompt's tokens carry a direction that the unembedding of one token reads.


@pytest.fixture(scope="module")
def planted():
    """Model, unit direction, and pairs whose positive completion the direction makes likelier."""
    model = make_model(torch.float64, initializer_range=0.05)
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9)).double()
    direction /= direction.norm()
    with torch.no_grad():
        # Other content too: a final norm is blind to the length of a residual of one direction.
        model.get_input_embeddings().weight.mul_(10)[6:] += direction
        model.get_output_embeddings().weight[7] += 2 * direction
    pairs = [Pair([BOS, 10 + n, 20 + n], [7], [8]) for n in range(5)]
    return model, direction, pairs


@pytest.fixture(scope="module")
def planted_decoder(planted):
    rows = torch.randn(400, D_MODEL, generator=torch.Generator().manual_seed(2))
    rows[333] = planted[1].float()
    return rows


def test_the_planted_direction_really_makes_the_positive_likelier(planted):
    model, direction, pairs = planted

    def remove(hidden):
        return hidden - (hidden @ direction)[..., None] * direction

    with torch.no_grad():
        for pair in pairs:
            before = run_naively(model, pair.prompt, pair.positive, lambda hidden: hidden)
            after = run_naively(model, pair.prompt, pair.positive, remove)
            assert float(after - before) > 1


@pytest.mark.parametrize("impl", ["reference", "torch"])
def test_planted_latent_ranks_first(planted, planted_decoder, impl):
    model, _, pairs = planted
    zero = Baseline.zero(D_MODEL)
    found = attribute(model, None, pairs, planted_decoder, site=SITE, baseline=zero, k=5, impl=impl)
    assert int(found.latents[0]) == 333
    assert float(found.scores[0]) > 2 * float(found.scores[1]) > 0
    assert float(found.push[0]) > 0
    assert float(found.presence[0]) > 0
    assert float(found.positive[0]) > 0

    swapped = [Pair(pair.prompt, pair.negative, pair.positive) for pair in pairs]
    last = attribute(
        model, None, swapped, planted_decoder, site=SITE, baseline=zero, k=5, ranking="bottom",
        impl=impl,
    )  # fmt: skip
    assert int(last.latents[0]) == 333
    assert float(last.scores[0]) < 0


@pytest.mark.parametrize("form", ["token", "quadratic"])
def test_planted_latent_ranks_first_in_both_forms(planted, planted_decoder, form):
    model, _, pairs = planted
    rows = list(capture(model, None, pairs, site=SITE))
    acts = torch.cat([row.acts for row in rows])
    grads = torch.cat([row.grad_positive - row.grad_negative for row in rows])
    weights = torch.cat([torch.full((len(r.acts),), 1 / (len(rows) * len(r.acts))) for r in rows])
    top = attribution_topk(
        acts, grads, planted_decoder, 5, weights=weights, form=form, normalize=True
    )
    found = attribute(
        model, None, pairs, planted_decoder, site=SITE, baseline=Baseline.zero(D_MODEL), k=5
    )
    assert int(top.latents[0]) == 333
    assert top.latents.tolist() == found.latents.tolist()
    torch.testing.assert_close(top.scores, found.scores, rtol=1e-5, atol=1e-9)


# What cannot be used.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"decoder": torch.zeros(9, 5)},
            rf"has d_model 5 but blocks.{SITE}.hook_resid_post has {D_MODEL}",
        ),
        ({"decoder": torch.zeros(9)}, r"W_dec must be \[n_latents, d_model\]"),
        ({"baseline": Baseline.zero(5)}, "baseline has d_model 5"),
        (
            {"baseline": Baseline(torch.zeros(D_MODEL), 1, "model.layers.0")},
            f"measured at model.layers.0 but the site is blocks.{SITE}",
        ),
        ({"baseline": None}, "baseline must be a Baseline or a tensor"),
        ({"k": 0}, "k must be at least 1"),
        ({"k": N_LATENTS + 1}, f"only {N_LATENTS} latents"),
        ({"site": 3}, r"no site 3: sites are 0 … 2"),
        ({"ranking": "best"}, "ranking must be one of top, bottom, abs, got 'best'"),
        ({"loss": "max"}, "loss must be one of sum, mean"),
        ({"gradients": "x"}, "gradients must be one of plain, integrated, relp, rel"),
        ({"impl": "fast"}, "impl must be auto or one of"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"pairs": []}, "no pairs given"),
        ({"pairs": make_pairs(2) + make_pairs(1)}, "2 pairs have the id 'p0'"),
        ({"pairs": [Pair([6], [7], [7], "x")]}, "pair 'x': .*same completion"),
        ({"pairs": [Pair([6], [7], [])]}, "pair 1: negative completion is empty"),
        ({"pairs": [Pair([6] * 64, [7], [8])]}, r"pair 1: .* 64 \+ .* 1 = 65 tokens"),
        ({"pairs": [Pair([VOCABULARY], [7], [8])]}, "outside the model's vocabulary"),
        ({"pairs": [Pair("text", "a", "b")]}, "needs a tokenizer"),
        ({"decoder": torch.full((N_LATENTS, D_MODEL), torch.nan)}, "150 decoder rows hold NaN"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    model, pairs, decoder, baseline, tmp_path, change, message
):
    run_dir = tmp_path / "run"
    arguments = {"pairs": pairs, "decoder": decoder, "baseline": baseline, "site": SITE, "k": K}
    with pytest.raises(InputError, match=message) as caught:
        attribute(model, None, **{**arguments, **change}, run_dir=run_dir)
    assert "\n" not in str(caught.value)
    assert not run_dir.exists()


def test_broken_weights_and_decoder_rows(pairs, decoder, baseline, tmp_path):
    broken = make_model()
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        attribute(
            broken, None, pairs, decoder, site=SITE, baseline=baseline, k=K, run_dir=tmp_path / "a"
        )
    holed = decoder.clone()
    holed[[3, 80], 5] = torch.inf
    with pytest.raises(InputError, match=r"2 decoder rows hold NaN or infinity \(latents 3, 80\)"):
        attribute(
            make_model(), None, pairs, holed, site=SITE, baseline=baseline, k=K,
            run_dir=tmp_path / "b",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_no_present_latent(model, pairs, baseline):
    mean = torch.full((D_MODEL,), 1e6)
    with pytest.raises(InputError, match="no latent is present"):
        attribute(
            model, None, pairs, torch.ones(4, D_MODEL), site=SITE, baseline=mean, k=2,
            present_only=True,
        )  # fmt: skip


def test_a_bare_vector_is_a_baseline(model, pairs, decoder, baseline):
    found = attribute(model, None, pairs, decoder, site=SITE, baseline=baseline.mean, k=3)
    expected = attribute(model, None, pairs, decoder, site=SITE, baseline=baseline, k=3)
    assert torch.equal(found.scores, expected.scores)
    assert isinstance(found, Attribution)
    assert found.baseline.provenance == {"source": "tensor"}
