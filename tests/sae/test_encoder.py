"""Encoding and decoding against each architecture's formula, written out in fp64."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cosine_similarity

import deltalens.sae.encoder
from deltalens import InputError
from deltalens.engine.decoder import TensorDecoder
from deltalens.sae.encoder import Encoder
from deltalens.sae.encoding import Encoding, Gated, GroupMax, ReLU, Threshold, TopK

D, D_OUT, F, TOKENS = 23, 17, 60, 37


MEASURE = """
import ctypes, sys, torch
from deltalens.engine.decoder import TensorDecoder
from deltalens.sae.encoder import Encoder
from deltalens.sae.encoding import Encoding, GroupMax, ReLU, TopK

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024

F, d = 1 << 16, 64
rows, acts = torch.randn(F, d), torch.randn(4096, d)
encoding = Encoding(TensorDecoder(rows), torch.zeros(F), torch.zeros(d), eval(sys.argv[1]), True)
encoder = Encoder(encoding, rows)
def work(n):
    encoder.encode_selected(acts[:n], [1, F - 1])
    encoder.reconstruction(acts[:n])
work(8)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
work(4096)
print(status("VmHWM") - before)
"""


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ACTS = 3 * draw(TOKENS, D, seed=0) + draw(D, seed=1)
ACTIVATIONS = {
    "relu": ReLU(),
    "topk": TopK(5),
    "topk of one": TopK(1),
    "topk of all": TopK(F),
    "threshold": Threshold(draw(F, seed=2).abs()),
    "gated": Gated(draw(F, seed=3).exp(), draw(F, seed=4), draw(F, seed=5)),
    "groupmax": GroupMax(6),
}
SETTINGS = {
    "plain": {},
    "b_dec on the output only": {"subtract_b_dec": False},
    "layer_norm": {"normalization": "layer_norm"},
    "constant_norm": {"normalization": "constant_norm", "subtract_b_dec": False},
    "input scale": {"input_scale": 0.3},
    "scale and layer_norm": {"input_scale": 1.7, "normalization": "layer_norm"},
    "decoder norms": {"rescale_by_decoder_norm": True},
    "transcoder": {"d_out": D_OUT, "subtract_b_dec": False},
    "skip": {"d_out": D_OUT, "subtract_b_dec": False, "skip": True, "output_scale": 0.6},
}


def make(activation, *, d_out=D, skip=False, dtype=torch.float32, **settings):
    gated = isinstance(activation, Gated)
    encoding = Encoding(
        W_enc=TensorDecoder(draw(F, D, seed=6).to(dtype)),
        b_enc=None if gated else draw(F, seed=7),
        b_dec=draw(d_out, seed=8),
        activation=activation,
        **{"subtract_b_dec": True, **settings},
        W_skip=draw(d_out, D, seed=9) if skip else None,
    )
    W_dec = draw(F, d_out, seed=10).to(dtype)
    return Encoder(encoding, W_dec), encoding, W_dec


def normalised(encoding, x):
    if encoding.normalization == "layer_norm":
        centre, scale = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        return (x - centre) / (scale + 1e-5), scale, centre
    if encoding.normalization == "constant_norm":
        scale = x.norm(dim=1, keepdim=True) / D**0.5
        return x / scale, scale, 0.0
    return x, 1.0, 0.0


def encoded(encoding, W_dec, acts):
    """z in fp64, one formula per architecture."""
    x = encoding.input_scale * normalised(encoding, acts.double())[0]
    if encoding.subtract_b_dec:
        x = x - encoding.b_dec.double()
    u = x @ encoding.W_enc.rows(0, F).double().T
    activation = encoding.activation
    if encoding.b_enc is not None:
        u = u + encoding.b_enc.double()
    if encoding.rescale_by_decoder_norm:
        u = u * W_dec.double().norm(dim=1)
    if isinstance(activation, TopK):
        kth = u.sort(dim=1, descending=True).values[:, activation.k - 1 : activation.k]
        return torch.where(u >= kth, u, 0.0).clamp(min=0)
    if isinstance(activation, Threshold):
        return torch.where(u > activation.threshold, u, 0.0).clamp(min=0)
    if isinstance(activation, Gated):
        open_gate = u + activation.gate_bias > 0
        return open_gate * (activation.scale * u + activation.bias).clamp(min=0)
    if isinstance(activation, GroupMax):
        grouped = u.unflatten(1, (activation.k, -1))
        best = grouped == grouped.amax(2, keepdim=True)
        return (best * grouped).clamp(min=0).flatten(1)
    return u.clamp(min=0)


def decoded(encoding, W_dec, z, acts):
    if encoding.rescale_by_decoder_norm:
        z = z / W_dec.double().norm(dim=1)
    scale = encoding.input_scale if encoding.output_scale is None else encoding.output_scale
    rebuilt = (z @ W_dec.double() + encoding.b_dec.double()) / scale
    _, spread, centre = normalised(encoding, acts.double())
    rebuilt = rebuilt * spread + centre
    return (
        rebuilt if encoding.W_skip is None else rebuilt + acts.double() @ encoding.W_skip.double().T
    )


def assert_near(found, expected):
    assert found.dtype == torch.float32
    error = (found.double() - expected).abs().max()
    assert error <= 3e-6 * expected.abs().max(), error


@pytest.fixture(params=["one tile", "many tiles"])
def tile_bytes(request, monkeypatch):
    if request.param == "many tiles":
        monkeypatch.setattr(deltalens.sae.encoder, "_TILE_BYTES", 4 * TOKENS * 16)
        monkeypatch.setattr(deltalens.sae.encoder, "_HELD_BYTES", 0)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_every_architecture_follows_its_formula(activation, settings, tile_bytes):
    encoder, encoding, W_dec = make(activation, **settings)
    z = encoded(encoding, W_dec, ACTS)
    expected = decoded(encoding, W_dec, z, ACTS)
    found = encoder.encode(ACTS)
    assert_near(found, z)
    assert_near(encoder.decode(found, ACTS), expected)
    assert_near(encoder.reconstruct(ACTS), expected)
    chosen = [59, 0, 16, 15, 16, 31]
    assert_near(encoder.encode_selected(ACTS, chosen), z[:, chosen])
    values, latents = found.sort(dim=1, descending=True)
    shown = int((found > 0).sum(1).max())
    assert_near(encoder.decode_sparse(values[:, :shown], latents[:, :shown], ACTS), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_bf16_weights_and_fp64_activations_are_computed_in_fp32(activation):
    encoder, encoding, W_dec = make(activation, dtype=torch.bfloat16)
    assert_near(encoder.encode(ACTS.double()), encoded(encoding, W_dec, ACTS))


def test_tiles_cover_all_latents_in_order(tile_bytes):
    encoder, _, _ = make(TopK(5))
    parts = list(encoder.encode_tiles(ACTS))
    assert [start for start, _ in parts][1:] == [
        z.shape[1] * (n + 1) for n, (_, z) in enumerate(parts[:-1])
    ]
    torch.testing.assert_close(torch.cat([z for _, z in parts], dim=1), encoder.encode(ACTS))


def test_of_equal_values_the_smaller_latents_are_kept(tile_bytes):
    """Whole numbers, so that every value is exact and many are equal."""
    W_enc, acts = draw(F, D, seed=11).round(), ACTS.round()
    encoding = Encoding(
        TensorDecoder(W_enc), torch.zeros(F), torch.zeros(D), TopK(9), subtract_b_dec=False
    )
    z = Encoder(encoding, draw(F, D, seed=12)).encode(acts)
    tied = 0
    for t, row in enumerate(acts @ W_enc.T):
        ranked = sorted(range(F), key=lambda i: (-float(row[i]), i))
        tied += row[ranked[8]] == row[ranked[9]]
        assert z[t].nonzero()[:, 0].tolist() == sorted(ranked[:9]), t
    assert tied


def test_exactly_k_survive_when_all_are_equal(tile_bytes):
    encoding = Encoding(
        TensorDecoder(torch.zeros(F, D)), torch.ones(F), torch.zeros(D), TopK(7), True
    )
    z = Encoder(encoding, draw(F, D, seed=12)).encode(ACTS)
    assert torch.equal(z, (torch.arange(F) < 7).float().expand(TOKENS, F))


def test_a_token_of_zeros_stays_finite():
    encoder, _, _ = make(ReLU(), normalization="constant_norm")
    assert encoder.reconstruct(torch.zeros(2, D)).isfinite().all()


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_reconstruction_statistics(activation, monkeypatch):
    monkeypatch.setattr(deltalens.sae.encoder, "BATCH_TOKENS", 10)
    encoder, encoding, W_dec = make(activation)
    z = encoded(encoding, W_dec, ACTS)
    rebuilt, x = decoded(encoding, W_dec, z, ACTS), ACTS.double()
    found = encoder.reconstruction(ACTS)
    unexplained = (x - rebuilt).square().sum() / (x - x.mean(0)).square().sum()
    assert found.tokens == TOKENS
    assert found.explained == pytest.approx(1 - float(unexplained), rel=1e-5)
    assert found.cosine == pytest.approx(float(cosine_similarity(x, rebuilt).mean()), rel=1e-5)
    assert found.l0 == float((z > 0).sum()) / TOKENS
    assert found.active.tolist() == (z > 0).sum(0).tolist()
    assert found.dead.tolist() == (z == 0).all(0).nonzero()[:, 0].tolist()


def test_a_transcoder_is_held_against_its_target():
    encoder, encoding, W_dec = make(ReLU(), d_out=D_OUT, subtract_b_dec=False)
    target = draw(TOKENS, D_OUT, seed=13)
    rebuilt = decoded(encoding, W_dec, encoded(encoding, W_dec, ACTS), ACTS)
    left = (target - rebuilt).square().sum() / (target - target.mean(0)).square().sum()
    found = encoder.reconstruction(ACTS, target)
    assert found.explained == pytest.approx(1 - float(left), rel=1e-5)
    with pytest.raises(InputError, match="writes 17 dimensions"):
        encoder.reconstruction(ACTS)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("activation", ["ReLU()", "TopK(32)", "GroupMax(64)"])
def test_memory_does_not_hold_tokens_times_latents(activation):
    """4096 tokens × 65,536 latents would be 1 GiB."""
    command = [sys.executable, "-c", MEASURE, activation]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 256


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        (torch.zeros(3, D + 1), r"acts must be floating-point \[tokens, 23\].*\[3, 24\]"),
        (torch.zeros(D), r"\[23\]"),
        (torch.zeros(3, D, dtype=torch.int64), "int64"),
        (torch.zeros(0, D), "empty"),
        (torch.full((3, D), torch.nan), "69 of 69 values of acts are NaN"),
    ],
)
def test_bad_activations_are_refused(acts, message):
    encoder, _, _ = make(TopK(5))
    for call in (
        encoder.encode,
        encoder.reconstruction,
        encoder.reconstruct,
        lambda x: list(encoder.encode_tiles(x)),
        lambda x: encoder.encode_selected(x, [0]),
    ):
        with pytest.raises(InputError, match=message):
            call(acts)


@pytest.mark.parametrize("latents", [[F], [-1], [], torch.zeros(2)])
def test_latents_that_are_not_there_are_refused(latents):
    with pytest.raises(InputError, match="latent"):
        make(ReLU())[0].encode_selected(ACTS, latents)


def test_decoding_asks_for_what_it_needs():
    encoder, _, _ = make(ReLU(), normalization="layer_norm")
    z = encoder.encode(ACTS)
    with pytest.raises(InputError, match="needs acts"):
        encoder.decode(z)
    with pytest.raises(InputError, match="4 tokens but the latents are of 37"):
        encoder.decode(z, ACTS[:4])
    with pytest.raises(InputError, match=r"\[tokens, 60\]"):
        encoder.decode(z[:, 1:], ACTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b_enc": torch.zeros(F - 1)}, r"b_enc must be \[60\]"),
        ({"b_enc": None}, "b_enc is missing"),
        ({"activation": TopK(F + 1)}, r"1 … 60.*got 61"),
        ({"activation": GroupMax(7)}, "do not divide into k = 7"),
        ({"activation": Threshold(torch.zeros(1))}, r"threshold must be \[60\], got \[1\]"),
        ({"W_enc": TensorDecoder(torch.zeros(F + 2, D))}, "62 latents but the decoder 60"),
        ({"W_enc": TensorDecoder(torch.zeros(F, D_OUT))}, "cannot be subtracted"),
    ],
)
def test_an_encoding_that_does_not_fit_is_refused(changes, message):
    _, encoding, W_dec = make(ReLU())
    with pytest.raises(InputError, match=message):
        Encoder(dataclasses.replace(encoding, **changes), W_dec)
