"""Gradients on the path of all latents, against an encoder, a decoder and a hook of the test's own,
one row at a time in fp64."""

from __future__ import annotations

import pytest
import torch

import deltalens
from deltalens.cost.dry_run import dry_run
from deltalens.errors import InputError
from deltalens.sae import save_saelens
from deltalens.study import Baseline, attribute
from deltalens.study.ablation.providers import KINDS as GRADIENTS
from deltalens.study.ablation.providers import first_order_by_gradients
from helpers.latent_sae import KINDS, F, baseline_of, encoded, make_sae, tensors
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    rows_naively,
    run_naively,
)

OPTIONS = {"score": "latent", "gradients": "integrated-latents", "check": 0, "sinks": None}


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module", params=KINDS)
def sae(request, tmp_path_factory):
    return make_sae(tmp_path_factory.mktemp("sae") / "sae", request.param), request.param


def slopes_at(model, pair, completion, z, acts, decode):
    """The loss of one row whose counted tokens are decode(z) with the error of ``acts`` added, and
    its gradient by z [T, latents]."""
    leaf = z.clone().requires_grad_(True)

    def put(hidden):
        return torch.cat([hidden[:, :1], decode(leaf)[None], hidden[:, len(pair.prompt) :]], 1)

    loss = run_naively(model, pair.prompt, completion, put)
    (grad,) = torch.autograd.grad(loss, leaf)
    return float(loss.detach()), grad


def path_naively(model, pair, completion, steps, mean, encode, W_dec):
    """−mean_t (z − z̄) · the mean slope by z, [latents]; and the loss at z̄."""
    acts, _ = rows_naively(model, pair.prompt, completion)
    z, factor = encode(acts)
    error = acts - factor * (z @ W_dec)

    def decode(latents):
        return factor * (latents @ W_dec) + error

    def at(fraction):
        return slopes_at(model, pair, completion, mean + fraction * (z - mean), acts, decode)

    slope = torch.stack([at((step + 0.5) / steps)[1] for step in range(steps)]).mean(0)
    return -((z - mean) * slope).mean(0), at(0.0)[0]


def test_against_slopes_by_the_latents_themselves(model, sae):
    sae, kind = sae
    baseline, pairs = baseline_of(sae), make_pairs(5)
    found = attribute(
        model, None, pairs, sae, site=SITE, baseline=baseline, k=F, steps=3, **OPTIONS
    )
    W_dec = tensors()["W_dec"].double()

    def naive(pair, completion):
        arguments = 3, baseline.latent_mean, lambda acts: encoded(kind, acts), W_dec
        return path_naively(model, pair, completion, *arguments)[0]

    expected = torch.stack([naive(p, p.positive) - naive(p, p.negative) for p in pairs])
    assert sorted(found.latents.tolist()) == list(range(F))
    # Rows are float32, and so is the point that the path starts at.
    size = float(expected.abs().max())
    torch.testing.assert_close(found.per_pair, expected[:, found.latents], rtol=0, atol=3e-6 * size)
    plain = attribute(
        model,
        None,
        pairs,
        sae,
        site=SITE,
        baseline=baseline,
        k=F,
        **{**OPTIONS, "gradients": "plain"},
    )
    assert not torch.allclose(plain.scores, found.scores, rtol=0.01)


def test_completeness(model, sae):
    """Summed over latents it tends to L(a) − L(decode(z̄) + error), by the midpoint rule."""
    sae, kind = sae
    baseline, (pair, *_) = baseline_of(sae), make_pairs(1)
    W_dec, mean = tensors()["W_dec"].double(), baseline.latent_mean
    _, resting = path_naively(
        model, pair, pair.positive, 1, mean, lambda acts: encoded(kind, acts), W_dec
    )
    off = []
    for steps in (64, 512):
        found = attribute(
            model, None, [pair], sae, site=SITE, baseline=baseline, k=F, steps=steps, **OPTIONS
        )
        change = float(found.metadata["mean_losses"]["positive"]) - resting
        assert abs(change) > 0.3
        summed = -float(found.positive.sum()) * (len(pair.prompt) - 1)
        off.append(abs(summed - change) / abs(change))
    assert off[1] < 1e-3
    assert off[1] < off[0] / 8


def test_a_real_models_width_and_vocabulary(tmp_path):
    """33,000 tokens, 576 dimensions, a dictionary four times as wide; prompts in one batch."""
    width, latents, keep = 576, 2304, 32
    shape = {"vocab_size": 33_000, "hidden_size": width, "initializer_range": 0.05}
    model = make_model(torch.float64, **shape)
    draw = torch.Generator().manual_seed(3)
    W_dec = torch.nn.functional.normalize(torch.randn(latents, width, generator=draw), dim=1)
    b_dec = 0.1 * torch.randn(width, generator=draw)
    save_saelens(
        tmp_path / "sae",
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(latents),
        W_dec=W_dec,
        b_dec=b_dec,
        cfg={"k": keep, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    pairs = [
        deltalens.Pair([1, 30_000, 77, 12_345, 9], [32_999, 5], [21_000]),
        deltalens.Pair([1, 400, 32_000], [17], [29_000, 3, 8]),
    ]

    def encode(acts):
        u = (acts - b_dec.double()) @ W_dec.double().T
        kept = u.topk(keep, dim=1)
        z = torch.zeros_like(u).scatter(1, kept.indices, kept.values.relu())
        return z, torch.ones(len(acts), 1, dtype=torch.float64)

    found = attribute(
        model, None, pairs, deltalens.load_sae(tmp_path / "sae"), site=SITE,
        baseline=Baseline.zero(width), k=50, steps=2, ranking="abs", **OPTIONS,
    )  # fmt: skip

    def naive(pair, completion):
        return path_naively(
            model, pair, completion, 2, torch.zeros(latents).double(), encode, W_dec.double()
        )[0]

    expected = torch.stack([naive(p, p.positive) - naive(p, p.negative) for p in pairs])
    first = expected.mean(0).abs().argsort(descending=True)[:50]
    assert found.latents.tolist() == first.tolist()
    size = float(expected.abs().max())
    torch.testing.assert_close(found.per_pair, expected[:, first], rtol=0, atol=3e-6 * size)


def test_every_kind_is_the_study_by_it(sae):
    """Of the same tokens, which the baseline's norm and not the prompts' own tells."""
    sae, _ = sae
    model, pairs = make_model(), make_pairs(6)
    norms = torch.cat([rows_naively(model, p.prompt, p.positive)[0].norm(dim=1) for p in pairs])
    limit = float(norms.median()) / deltalens.Sinks().times_median
    baseline = baseline_of(sae)
    baseline = Baseline(**{**vars(baseline), "median_norm": limit})
    arguments = {"site": SITE, "baseline": baseline, "score": "latent", "steps": 2}
    assert GRADIENTS["latent"][-1] == "integrated-latents"
    for estimates in first_order_by_gradients(model, None, pairs, sae, range(F), **arguments):
        study = attribute(
            model, None, pairs, sae, k=F, check=0, gradients=estimates.gradients, **arguments
        )
        left = study.metadata["sinks"]
        assert 0 < left["massive"] < left["tokens"] - 2 * len(pairs)
        torch.testing.assert_close(
            estimates.values[:, study.latents], study.per_pair, rtol=1e-5, atol=1e-7
        )


def test_directions_have_no_path(model, sae):
    sae, _ = sae
    arguments = {"site": SITE, "baseline": baseline_of(sae), "gradients": "integrated-latents"}
    with pytest.raises(InputError, match="score='latent'"):
        attribute(model, None, make_pairs(2), sae, **arguments)
    assert "integrated-latents" not in GRADIENTS["direction"]


def test_a_broken_sae_is_named(model, tmp_path):
    sae = make_sae(tmp_path / "sae", "topk")
    sae.W_dec.rows(0, F)[:] = torch.inf
    with pytest.raises(InputError, match="SAE"):
        attribute(
            model,
            None,
            make_pairs(2),
            sae,
            site=SITE,
            baseline=Baseline.zero(D_MODEL),
            k=5,
            **OPTIONS,
        )


def test_cost(model, sae):
    sae, _ = sae
    baseline = baseline_of(sae)

    def cost(gradients):
        with dry_run() as found:
            attribute(
                model, None, make_pairs(4), sae, site=SITE, baseline=baseline, k=5, steps=3,
                **{**OPTIONS, "gradients": gradients},
            )  # fmt: skip
        return found.most

    plain, path = cost("plain"), cost("integrated-latents")
    assert path.backward == 3 * plain.backward
    assert path.forward == 4 * plain.forward
