"""Studies of a model with attention sinks: every part leaves them out, and first order holds."""

from __future__ import annotations

import pytest
import torch

import deltalens
from deltalens import Pair
from deltalens.lm import activations
from deltalens.sae import save_saelens
from deltalens.study import Attribution, Baseline, ablate, attribute, compare_ablation
from deltalens.trials.residual_norm import median_norm
from helpers.sink_model import LAYERS, SINK, SITE, VOCABULARY, WIDTH, make_sink_model

N_LATENTS = 40


@pytest.fixture(scope="module")
def model():
    return make_sink_model()


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(N_LATENTS, WIDTH, generator=torch.Generator().manual_seed(5))


def sequences(count: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(8, VOCABULARY, (count, 16), generator=generator).tolist()
    for number in range(0, count, 3):
        found[number][9] = SINK
    return found


PAIRS = [
    Pair(ids, [9 + n, 10, 11], [30, 31 + n], id=f"p{n}") for n, ids in enumerate(sequences(9, 1))
]
TEXTS = sequences(12, 2)


def kept_rows(model, ids: list[int]) -> torch.Tensor:
    ((_, rows),) = activations(model, [ids], site=SITE)
    return rows[[place for place, token in enumerate(ids) if place and token != SINK]]


def test_the_baseline_is_the_mean_of_the_other_tokens(model):
    found = deltalens.mean_activation(model, None, TEXTS, site=SITE)
    rows = torch.cat([kept_rows(model, ids) for ids in TEXTS]).double()
    torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-6, atol=1e-8)
    assert found.tokens == len(rows)
    assert found.provenance["sinks"]["first"] == len(TEXTS)
    assert found.provenance["sinks"]["massive"] == 4
    every = deltalens.mean_activation(model, None, TEXTS, site=SITE, sinks=None)
    assert every.mean.norm() > 5 * found.mean.norm()  # what leaving them out is for


def test_the_baseline_remembers_the_median_norm(model, tmp_path):
    found = deltalens.mean_activation(model, None, TEXTS, site=SITE)
    found.save(tmp_path / "baseline.safetensors")
    assert Baseline.load(tmp_path / "baseline.safetensors").median_norm == found.median_norm
    assert found.median_norm == found.provenance["sinks"]["median"]


def test_first_order_agrees_with_ablation_only_without_sinks(model, decoder, tmp_path):
    baseline = deltalens.mean_activation(model, None, TEXTS, site=SITE)
    found = attribute(
        model, None, PAIRS, decoder, site=SITE, baseline=baseline, k=N_LATENTS,
        run_dir=tmp_path / "run",
    )  # fmt: skip
    check = found.metadata["first_order"]
    exact = ablate(model, None, PAIRS, decoder, found.latents[:8], site=SITE, baseline=baseline)
    expected = compare_ablation(found.per_pair[:, :8], exact)
    assert check["correlation_entries"] == pytest.approx(expected.correlation_entries, rel=1e-9)
    assert check["slope"] == pytest.approx(expected.slope, rel=1e-9)
    assert check["correlation_entries"] > 0.9
    assert found.metadata["sinks"]["massive"] == 3
    assert found.metadata["counts"]["left_out"] == 9 + 3
    assert found.metadata["options"]["sinks"] == 10.0
    assert Attribution.load(tmp_path / "run").metadata["first_order"] == check

    everywhere = deltalens.mean_activation(model, None, TEXTS, site=SITE, sinks=None)
    with pytest.warns(UserWarning, match="first order disagrees with exact ablation"):
        counted = attribute(
            model, None, PAIRS, decoder, site=SITE, baseline=everywhere, k=N_LATENTS, sinks=None
        )
    assert counted.metadata["first_order"]["correlation_entries"] < 0.6
    shared = set(counted.latents[:8].tolist()) & set(found.latents[:8].tolist())
    assert len(shared) < 5


def test_scores_are_those_of_the_kept_rows_by_autograd(model, decoder):
    baseline = deltalens.mean_activation(model, None, TEXTS, site=SITE)
    found = attribute(
        model, None, PAIRS, decoder, site=SITE, baseline=baseline, k=N_LATENTS, check=0
    )
    units = torch.nn.functional.normalize(decoder.double(), dim=1)
    deltas = []
    for pair in PAIRS:
        kept = [place for place, token in enumerate(pair.prompt) if place and token != SINK]
        sides = []
        for completion in (pair.positive, pair.negative):
            acts, grads = naive_rows(model, pair.prompt, completion)
            products = (grads[kept] @ units.T) * ((acts[kept] - baseline.mean) @ units.T)
            sides.append(-products.mean(0))
        deltas.append(sides[0] - sides[1])
    expected = torch.stack(deltas).mean(0)
    torch.testing.assert_close(found.scores.double(), expected[found.latents], rtol=1e-4, atol=1e-8)


def naive_rows(model, prompt: list[int], completion: list[int]):
    leaves: list[torch.Tensor] = []

    def hook(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        leaves.append(hidden.detach().requires_grad_(True))
        return (leaves[0], *output[1:]) if isinstance(output, tuple) else leaves[0]

    handle = model.transformer.h[SITE].register_forward_hook(hook)
    try:
        logits = model(torch.tensor([prompt + completion])).logits[0]
    finally:
        handle.remove()
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    chosen = logits.log_softmax(-1)[list(places), completion]
    (grads,) = torch.autograd.grad(-chosen.sum(), leaves[0])
    return leaves[0].detach()[0, : len(prompt)], grads[0, : len(prompt)]


@pytest.fixture(scope="module")
def sae(tmp_path_factory, decoder):
    directory = tmp_path_factory.mktemp("saes") / "topk"
    save_saelens(
        directory,
        W_enc=decoder.T.contiguous() / 10,
        b_enc=torch.zeros(N_LATENTS),
        W_dec=decoder,
        b_dec=torch.zeros(WIDTH),
        cfg={
            "k": 5,
            "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"},
        },
    )
    return deltalens.load_sae(directory)


def test_latent_means_leave_them_out(model, sae):
    found = deltalens.mean_activation(model, None, TEXTS, site=SITE, sae=sae)
    rows = torch.cat([kept_rows(model, ids) for ids in TEXTS])
    torch.testing.assert_close(
        found.latent_mean, sae.encoder().encode(rows).double().mean(0), rtol=1e-5, atol=1e-7
    )


def test_delta_activation_leaves_out_what_is_massive_in_either_model(model, sae):
    other = make_sink_model(seed=1)
    found = deltalens.delta_activation(model, other, None, TEXTS, sae, site=SITE, k=5)
    means = []
    for each in (model, other):
        z = [sae.encoder().encode(kept_rows(each, ids)).double().mean(0) for ids in TEXTS]
        means.append(torch.stack(z).mean(0))
    torch.testing.assert_close(found.difference, means[0] - means[1], rtol=1e-5, atol=1e-6)
    assert found.metadata["sinks"]["model"]["massive"] == 4


def test_delta_activation_of_pairs_leaves_them_out_of_completions(model, sae):
    pairs = [Pair(p.prompt, [*p.positive, SINK, 14], p.negative, id=p.id) for p in PAIRS]
    found = deltalens.delta_activation_of_pairs(model, None, pairs, sae, site=SITE, k=5)

    def side(pair: Pair, completion: list[int]) -> torch.Tensor:
        ((_, rows),) = activations(model, [pair.prompt + completion], site=SITE)
        kept = [len(pair.prompt) + n for n, token in enumerate(completion) if token != SINK]
        return sae.encoder().encode(rows[kept]).double().mean(0)

    expected = [side(pair, pair.positive) - side(pair, pair.negative) for pair in pairs]
    torch.testing.assert_close(
        found.difference, torch.stack(expected).mean(0), rtol=1e-5, atol=1e-6
    )


def test_the_unit_of_strengths_is_the_median_of_the_others(model):
    norms = torch.cat([kept_rows(model, ids).norm(dim=1) for ids in TEXTS])
    assert median_norm(model, None, TEXTS, site=SITE) == pytest.approx(float(norms.median()))


def test_examples_are_never_of_a_sink(model, sae, tmp_path):
    found = deltalens.collect_examples(
        model, None, TEXTS, sae, tmp_path / "out", site=SITE, lens_top=0, context=16
    )
    rows = torch.cat([kept_rows(model, ids) for ids in TEXTS])
    z = sae.encoder().encode(rows)
    assert (found["tokens"], found["left_out"]) == (len(rows), 12 + 4)
    for line in deltalens.read_examples(tmp_path / "out"):
        said, active = line["examples"], z[:, line["latent"]]
        assert said["frequency"] == pytest.approx(float((active > 0).double().mean()))
        assert said["mean"] == pytest.approx(float(active.double().mean()), rel=1e-5)
        assert said["max"] == pytest.approx(float(active.max()), rel=1e-3)


def test_a_negative_check_is_refused(model, decoder):
    with pytest.raises(deltalens.InputError, match="check must be 0 or more"):
        attribute(
            model, None, PAIRS, decoder, site=SITE, baseline=Baseline.zero(WIDTH), k=3, check=-1
        )


def test_the_layers_of_the_model_have_the_sinks_that_it_was_built_with(model):
    for layer in range(LAYERS):
        ((_, rows),) = activations(model, [TEXTS[0]], site=layer)
        norms = rows.norm(dim=1)
        assert norms[0] > 10 * norms.median()
        assert norms[9] > 10 * norms.median()
