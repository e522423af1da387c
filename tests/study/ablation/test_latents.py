"""Latents ablated for real, against an encoder and a hook of the test's own, one row at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.study import Baseline, ablate, attribute
from helpers.latent_sae import KINDS, F, baseline_of, encoded, make_sae, tensors
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs, rows_naively, run_naively


@pytest.fixture(params=KINDS)
def sae(request, tmp_path):
    return make_sae(tmp_path / "sae", request.param), request.param


def ablate_naively(model, kind, pair, latent, mean) -> float:
    acts, _ = rows_naively(model, pair.prompt, pair.positive)
    z, factor = encoded(kind, acts)
    amount = (z[:, latent] - mean[latent]) * factor[:, 0]
    taken = torch.outer(amount, tensors()["W_dec"][latent].double())

    def remove(hidden):
        changed = hidden.clone()
        changed[0, 1 : len(pair.prompt)] -= taken
        return changed

    def change(completion):
        with torch.no_grad():
            before = run_naively(model, pair.prompt, completion, lambda hidden: hidden)
            return float(run_naively(model, pair.prompt, completion, remove) - before)

    return (change(pair.positive) - change(pair.negative)) / len(acts)


@pytest.mark.parametrize("batch_tokens", [20, 4096])
def test_against_an_encoder_and_a_hook_on_one_row_at_a_time(sae, batch_tokens):
    sae, kind = sae
    model, pairs, latents = make_model(torch.float64), make_pairs(5), [17, 3, 60, 111]
    baseline = baseline_of(sae)
    found = ablate(
        model, None, pairs, sae, latents, site=SITE, baseline=baseline, score="latent",
        sinks=None, batch_tokens=batch_tokens,
    )  # fmt: skip
    mean = baseline.latent_mean
    expected = [[ablate_naively(model, kind, pair, i, mean) for i in latents] for pair in pairs]
    expected = torch.tensor(expected, dtype=torch.float64)
    # Activations that are encoded come as float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_first_order_tends_to_it(sae):
    """With z̄ = z − ε on a single token the ablation is small: errors fall faster than values."""
    sae, kind = sae
    model, (pair, *_) = make_model(torch.float64), make_pairs(1)
    pair = deltalens.Pair([pair.prompt[0], 12], pair.positive, pair.negative)
    acts, _ = rows_naively(model, pair.prompt, pair.positive)
    z, _ = encoded(kind, acts)
    off = []
    for step in (0.1, 0.01):
        baseline = baseline_of(sae)
        mean = z[0] - step * torch.rand(F, generator=torch.Generator().manual_seed(2)).double()
        baseline = replace(baseline, latent_mean=mean)
        arguments = {"site": SITE, "baseline": baseline, "score": "latent", "sinks": None}
        result = attribute(model, None, [pair], sae, k=40, check=0, **arguments)
        exact = ablate(model, None, [pair], sae, result.latents, **arguments)
        off.append(float((exact - result.per_pair).norm() / exact.norm()))
    assert off[1] < 0.02
    assert off[1] < off[0] / 4


def test_a_decoder_alone_has_no_latents(sae):
    sae, _ = sae
    with pytest.raises(InputError, match="SAE"):
        ablate(
            make_model(), None, make_pairs(1), tensors()["W_dec"], [1], site=SITE,
            baseline=Baseline.zero(D_MODEL), score="latent",
        )  # fmt: skip
