"""latent_attribution against latents materialised and written back as formats define them, fp64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import deltalens
from deltalens.engine import as_decoder
from deltalens.errors import InputError
from deltalens.sae.encoding import Encoding, Gated, GroupMax, ReLU, Threshold, TopK

TOKENS, D_MODEL, N = 45, 40, 96

ACTIVATIONS = {
    "relu": lambda draw: ReLU(),
    "topk": lambda draw: TopK(7),
    "threshold": lambda draw: Threshold(draw(N).abs()),
    "gated": lambda draw: Gated((draw(N) * 0.2).exp(), draw(N), draw(N)),
    "groupmax": lambda draw: GroupMax(8),
}
CONVENTIONS = {
    "plain": {},
    "b_dec": {"subtract_b_dec": True},
    "scaled": {"input_scale": 0.25, "subtract_b_dec": True},
    "two scales": {"input_scale": 0.25, "output_scale": 3.0},
    "layer norm": {"normalization": "layer_norm"},
    "constant norm": {"normalization": "constant_norm", "input_scale": 2.0},
    "decoder norm": {"rescale_by_decoder_norm": True},
}

activations = pytest.mark.parametrize("activation", ACTIVATIONS)
conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def case(activation: str, convention: str):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = draw(N, D_MODEL)
    W_dec[5] = 0  # a dead latent
    settings = {"subtract_b_dec": False, **CONVENTIONS[convention]}
    encoding = Encoding(
        as_decoder(draw(N, D_MODEL)),
        None if activation == "gated" else draw(N),
        draw(D_MODEL),
        ACTIVATIONS[activation](draw),
        **settings,
    )
    return {
        "acts": draw(TOKENS, D_MODEL) * 3 + draw(D_MODEL),
        "grads": draw(TOKENS, D_MODEL),
        "W_dec": W_dec,
        "encoding": encoding,
        "z_mean": draw(N).abs(),
        "weights": draw(TOKENS) / TOKENS,
    }


def latents(encoding: Encoding, norms: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
    """z [tokens, N] in fp64."""
    x = acts.double()
    if encoding.normalization == "layer_norm":
        x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    elif encoding.normalization == "constant_norm":
        x = x * D_MODEL**0.5 / x.norm(dim=1, keepdim=True)
    x = x * encoding.input_scale - (encoding.b_dec.double() if encoding.subtract_b_dec else 0.0)
    u = x @ encoding.W_enc.rows(0, N).double().T
    u = u if encoding.b_enc is None else u + encoding.b_enc
    u = u * norms if encoding.rescale_by_decoder_norm else u
    match encoding.activation:
        case TopK(k):
            return torch.zeros_like(u).scatter(1, u.topk(k).indices, u.topk(k).values.relu())
        case Threshold(threshold):
            return torch.where(u > threshold, u.relu(), 0.0)
        case Gated(scale, bias, gate_bias):
            return (u * scale + bias).relu() * (u + gate_bias > 0)
        case GroupMax(k):
            groups = u.unflatten(1, (k, -1))
            return torch.where(groups == groups.amax(2, keepdim=True), groups.relu(), 0).flatten(1)
    return u.relu()


def rebuilt(encoding: Encoding, W_dec: torch.Tensor, z: torch.Tensor, acts: torch.Tensor):
    """The reconstruction [tokens, d_model] in fp64."""
    if encoding.rescale_by_decoder_norm:
        z = z / W_dec.norm(dim=1).clamp(min=1e-300)
    scale = encoding.input_scale if encoding.output_scale is None else encoding.output_scale
    found = (z @ W_dec + encoding.b_dec) / scale
    acts = acts.double()
    if encoding.normalization == "layer_norm":
        return found * acts.std(1, keepdim=True) + acts.mean(1, keepdim=True)
    if encoding.normalization == "constant_norm":
        return found * acts.norm(dim=1, keepdim=True) / D_MODEL**0.5
    return found


def naive(given) -> torch.Tensor:
    """−Σ_t w_t γ_t · (reconstruction − the same with the latent at its mean), [N]."""
    encoding, acts, W_dec = given["encoding"], given["acts"], given["W_dec"].double()
    z = latents(encoding, W_dec.norm(dim=1), acts)
    whole = rebuilt(encoding, W_dec, z, acts)
    scores = []
    for latent in range(N):
        at_mean = z.clone()
        at_mean[:, latent] = given["z_mean"][latent]
        change = whole - rebuilt(encoding, W_dec, at_mean, acts)
        scores.append(-(given["weights"].double() @ (change * given["grads"]).sum(1)))
    return torch.stack(scores)


@activations
@conventions
@pytest.mark.parametrize("impl", ["reference", "torch", "auto"])
def test_setting_a_latent_to_its_mean_changes_the_reconstruction_so(activation, convention, impl):
    given = case(activation, convention)
    expected = naive(given)
    found = deltalens.latent_attribution(**given, impl=impl)
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )
    top = deltalens.latent_attribution_topk(**given, k=9, impl=impl)
    assert top.certified
    assert top.latents.tolist() == expected.argsort(descending=True)[:9].tolist()


def test_equal_weights_and_no_mean_are_the_default():
    given = case("topk", "plain")
    given |= {"z_mean": torch.zeros(N), "weights": torch.full((TOKENS,), 1 / TOKENS)}
    few = {name: given[name] for name in ("acts", "grads", "W_dec", "encoding")}
    torch.testing.assert_close(
        deltalens.latent_attribution(**few), naive(given).float(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acts": torch.ones(TOKENS, 3)}, "acts must be floating-point"),
        ({"acts": torch.full((TOKENS, D_MODEL), torch.nan)}, "values of acts are NaN"),
        ({"grads": torch.ones(2, D_MODEL)}, "same shape"),
        (
            {"weights": torch.ones(3)},
            r"weights must be a floating-point tensor \[tokens\] = \[45\]",
        ),
        ({"W_dec": torch.ones(N + 1, D_MODEL)}, "96 latents but the decoder 97"),
        ({"z_mean": torch.ones(N + 1)}, "z_mean must be"),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        deltalens.latent_attribution(**{**case("topk", "plain"), **change})
    assert "\n" not in str(caught.value)


def test_an_encoder_that_reads_another_width_is_refused():
    given = case("topk", "plain")
    narrow = replace(given["encoding"], W_enc=as_decoder(torch.ones(N, 12)))
    given |= {"encoding": narrow, "acts": torch.ones(TOKENS, 12)}
    with pytest.raises(InputError, match="same shape"):
        deltalens.latent_attribution(**given)
