"""SAELens' layout, and its encoders against its formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae import load_sae
from helpers.sae_checks import (
    SHAPES,
    check_rows,
    close,
    encode,
    not_encodable,
    refused,
    weights,
)
from helpers.sae_writers import write_saelens


@pytest.mark.parametrize("shape", SHAPES)
def test_rows(tmp_path: Path, shape: tuple[int, int]) -> None:
    tensors = weights(shape)
    sae = load_sae(write_saelens(tmp_path / "sae", tensors))
    assert (sae.format, sae.path) == ("saelens", tmp_path / "sae")
    check_rows(sae.W_dec, tensors["W_dec"])
    for name, tensor in tensors.items():
        assert torch.equal(sae.tensor(name), tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = weights((50, 16), dtype)
    sae = load_sae(write_saelens(tmp_path / "sae", tensors))
    check_rows(sae.W_dec, tensors["W_dec"])


def test_the_weight_file_stands_for_its_directory(tmp_path: Path) -> None:
    directory = write_saelens(tmp_path / "sae", weights((50, 16)))
    sae = load_sae(str(directory / "sae_weights.safetensors"))
    assert sae.format == "saelens"
    assert sae.site == "blocks.8.hook_resid_post"


@pytest.mark.parametrize(
    ("changes", "site", "model_name"),
    [
        ({}, "blocks.8.hook_resid_post", "gpt2-small"),
        (
            {"metadata": {}, "hook_name": "blocks.3.hook_resid_pre", "model_name": "pythia"},
            "blocks.3.hook_resid_pre",
            "pythia",
        ),
        (
            {"metadata": None, "hook_point": "blocks.{layer}.hook_mlp_out", "hook_layer": 7},
            "blocks.7.hook_mlp_out",
            None,
        ),
        (
            {"metadata": {}, "hook_point": "blocks.5.hook_resid_post", "hook_point_layer": 5},
            "blocks.5.hook_resid_post",
            None,
        ),
        ({"metadata": {}}, None, None),
    ],
)
def test_site_and_model_now_and_before_version_6(
    tmp_path: Path, changes: dict[str, Any], site: str | None, model_name: str | None
) -> None:
    sae = load_sae(write_saelens(tmp_path / "sae", weights((50, 16)), **changes))
    assert (sae.site, sae.model_name) == (site, model_name)
    assert sae.metadata["architecture"] == "jumprelu"


def test_a_transcoder_is_described_by_its_output(tmp_path: Path) -> None:
    metadata = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.out"}
    changes = {"d_in": 8, "d_out": 16, "metadata": metadata}
    sae = load_sae(write_saelens(tmp_path / "sae", weights((50, 16)), **changes))
    assert sae.site == "blocks.1.out"
    assert sae.W_dec.d_model == 16


@pytest.mark.parametrize("changes", [{"d_in": 50, "d_sae": 16}, {"d_sae": 51}, {"d_in": 15}])
def test_sizes_other_than_configured(tmp_path: Path, changes: dict[str, int]) -> None:
    directory = write_saelens(tmp_path / "sae", weights((50, 16)), **changes)
    message = refused(directory)
    assert "W_dec [latents, width] is [50, 16], which contradicts d_sae = " in message


def test_damaged_configuration(tmp_path: Path) -> None:
    directory = write_saelens(tmp_path / "sae", weights((50, 16)))
    (directory / "cfg.json").write_text('{"d_in": ')
    assert "cfg.json: not JSON" in refused(directory)
    (directory / "cfg.json").write_text("[1]")
    assert "cfg.json: a JSON list, expected an object" in refused(directory)
    (directory / "cfg.json").write_bytes(b"\xff\xfe\x00")
    assert "cfg.json: not UTF-8" in refused(directory)


def test_without_a_decoder(tmp_path: Path) -> None:
    directory = write_saelens(tmp_path / "sae", weights((50, 16)))
    safetensors.numpy.save_file(
        {"W_enc": np.zeros((16, 50))}, directory / "sae_weights.safetensors"
    )
    assert "no tensor 'W_dec'; it has W_enc [16, 50]" in refused(directory)


def test_truncated(tmp_path: Path) -> None:
    directory = write_saelens(tmp_path / "sae", weights((50, 16)))
    file = directory / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "truncated: an array ends at byte" in refused(directory)


def jump_relu(u: Tensor, threshold: Tensor) -> Tensor:
    return torch.relu(u) * (u > threshold)


def topk(u: Tensor, k: int) -> Tensor:
    values, latents = u.topk(k, dim=-1)
    return torch.zeros_like(u).scatter_(-1, latents, values.relu())


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in tensors.items()}


def check_encoding(directory: Path, z: Tensor, reconstruction: Tensor, x: Tensor) -> None:
    sae = load_sae(directory)
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], z)
    assert close(actual[1], reconstruction)
    assert torch.equal(actual[0] > 0, z > 0)


@pytest.mark.parametrize("apply_b_dec", [True, False, None])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoding(
    tmp_path: Path, architecture: str, apply_b_dec: bool | None, shape: tuple[int, int]
) -> None:
    tensors = weights(shape)
    if architecture == "jumprelu":
        tensors["threshold"] = torch.rand(shape[0])
    k = min(5, shape[0])
    changes: dict[str, Any] = {"apply_b_dec_to_input": apply_b_dec, "k": k}
    if apply_b_dec is None:
        del changes["apply_b_dec_to_input"]
    directory = write_saelens(tmp_path / "sae", tensors, architecture=architecture, **changes)
    if apply_b_dec is None:
        config = json.loads((directory / "cfg.json").read_text())
        del config["apply_b_dec_to_input"]
        (directory / "cfg.json").write_text(json.dumps(config))
    x, w = torch.randn(30, shape[1]), doubled(tensors)
    inner = x.double() - (0 if apply_b_dec is False else w["b_dec"])
    u = inner @ w["W_enc"] + w["b_enc"]
    z = {
        "standard": torch.relu,
        "topk": lambda u: topk(u, k),
        "jumprelu": lambda u: jump_relu(u, w["threshold"]),
    }[architecture](u)
    check_encoding(directory, z, z @ w["W_dec"] + w["b_dec"], x)


def test_a_gated_encoder(tmp_path: Path) -> None:
    tensors = weights((50, 16))
    del tensors["b_enc"]
    tensors |= {name: torch.randn(50) for name in ("b_gate", "b_mag", "r_mag")}
    changes = {"architecture": "gated", "apply_b_dec_to_input": True}
    directory = write_saelens(tmp_path / "sae", tensors, **changes)
    x, w = torch.randn(30, 16), doubled(tensors)
    inner = x.double() - w["b_dec"]
    gate = (inner @ w["W_enc"] + w["b_gate"] > 0).double()
    magnitude = torch.relu(inner @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
    z = gate * magnitude
    check_encoding(directory, z, z @ w["W_dec"] + w["b_dec"], x)


@pytest.mark.parametrize(
    "architecture",
    ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"],
)
def test_transcoders(tmp_path: Path, architecture: str) -> None:
    F, d_in, d_out = 50, 12, 16
    tensors = weights((F, d_out)) | {"W_enc": torch.randn(d_in, F)}
    if "jumprelu" in architecture:
        tensors["threshold"] = torch.rand(F)
    if "skip" in architecture:
        tensors["W_skip"] = torch.randn(d_out, d_in)
    changes = {"architecture": architecture, "d_in": d_in, "d_out": d_out}
    directory = write_saelens(tmp_path / "sae", tensors, **changes)
    x, w = torch.randn(30, d_in), doubled(tensors)
    u = x.double() @ w["W_enc"] + w["b_enc"]
    z = jump_relu(u, w["threshold"]) if "jumprelu" in architecture else torch.relu(u)
    reconstruction = z @ w["W_dec"] + w["b_dec"]
    if "skip" in architecture:
        reconstruction = reconstruction + x.double() @ w["W_skip"].T
    check_encoding(directory, z, reconstruction, x)


@pytest.mark.parametrize("kind", ["constant_norm_rescale", "layer_norm"])
def test_normalisations_of_each_token(tmp_path: Path, kind: str) -> None:
    tensors = weights((50, 16))
    changes = {"architecture": "topk", "k": 4, "apply_b_dec_to_input": True}
    directory = write_saelens(tmp_path / "sae", tensors, normalize_activations=kind, **changes)
    x, w = torch.randn(30, 16) * 7 + 3, doubled(tensors)
    if kind == "constant_norm_rescale":
        mean, size = 0, x.double().norm(dim=-1, keepdim=True) / 4
        inner = x.double() / size
    else:
        mean = x.double().mean(dim=-1, keepdim=True)
        size = (x.double() - mean).std(dim=-1, keepdim=True)
        inner = (x.double() - mean) / (size + 1e-5)
    z = topk((inner - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 4)
    check_encoding(directory, z, (z @ w["W_dec"] + w["b_dec"]) * size + mean, x)


@pytest.mark.parametrize("said", ["expected_average_only_in", True])
def test_a_mean_norm_is_applied_where_it_is_recorded(tmp_path: Path, said: str | bool) -> None:
    tensors = weights((50, 16))
    changes = {"architecture": "standard", "apply_b_dec_to_input": True}
    directory = write_saelens(tmp_path / "sae", tensors, normalize_activations=said, **changes)
    assert "the factor is recorded nowhere" in not_encodable(directory)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    # The library folds the factor into the weights, and then encodes without it.
    s, x, w = 0.25, torch.randn(30, 16), doubled(tensors)
    W_enc, W_dec, b_dec = w["W_enc"] * s, w["W_dec"] / s, w["b_dec"] / s
    z = torch.relu((x.double() - b_dec) @ W_enc + w["b_enc"])
    check_encoding(directory, z, z @ W_dec + b_dec, x)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": null}')
    assert "scaling_factor is None; expected a positive number" in not_encodable(directory)


def test_topk_of_latents_rescaled_by_their_decoder_norm(tmp_path: Path) -> None:
    tensors = weights((50, 16))
    changes = {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}
    directory = write_saelens(tmp_path / "sae", tensors, **changes)
    x, w = torch.randn(30, 16), doubled(tensors)
    norms = w["W_dec"].norm(dim=-1)
    z = topk((x.double() @ w["W_enc"] + w["b_enc"]) * norms, 4)
    check_encoding(directory, z, (z / norms) @ w["W_dec"] + w["b_dec"], x)


def test_a_configuration_from_before_version_6(tmp_path: Path) -> None:
    tensors = weights((50, 16)) | {"scaling_factor": torch.ones(50)}
    directory = write_saelens(tmp_path / "sae", tensors)
    config = {
        "model_name": "gpt2-small",
        "hook_point": "blocks.{layer}.hook_resid_pre",
        "hook_point_layer": 8,
        "d_in": 16,
        "d_sae": 50,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 6},
        "normalize_activations": False,
    }
    (directory / "cfg.json").write_text(json.dumps(config))
    sae = load_sae(directory)
    assert (sae.site, sae.model_name) == ("blocks.8.hook_resid_pre", "gpt2-small")
    x, w = torch.randn(30, 16), doubled(tensors)
    z = topk((x.double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 6)
    check_encoding(directory, z, z @ w["W_dec"] + w["b_dec"], x)


@pytest.mark.parametrize(
    ("changes", "extra", "reason"),
    [
        ({"architecture": "temporal"}, {}, "architecture 'temporal' is none of standard, topk"),
        ({"architecture": "matching_pursuit"}, {}, "architecture 'matching_pursuit' is none of"),
        (
            {"architecture": "standard", "activation_fn_str": "tanh-relu"},
            {},
            "'standard with tanh-relu'",
        ),
        ({"architecture": "jumprelu"}, {}, "has no tensor 'threshold'"),
        ({"architecture": "topk"}, {}, "k is None; expected a whole number from 1 to 50"),
        ({"architecture": "topk", "k": 51}, {}, "k is 51; expected a whole number from 1 to 50"),
        ({"architecture": "topk", "k": 2.5}, {}, "k is 2.5"),
        ({"normalize_activations": "covariance_whitening"}, {}, "'covariance_whitening'"),
        ({"architecture": "gated"}, {}, "no tensor 'r_mag'"),
        ({"architecture": "skip_transcoder"}, {}, "no tensor 'W_skip'"),
        (
            {"architecture": "transcoder", "normalize_activations": "layer_norm"},
            {},
            "a transcoder with normalize_activations",
        ),
        ({"architecture": "standard"}, {"scaling_factor": torch.rand(50)}, "scaling_factor"),
        ({"architecture": "standard"}, {"b_enc": torch.zeros(49)}, "b_enc is [49]"),
        ({"architecture": "standard"}, {"b_dec": torch.zeros(16, 1)}, "b_dec is [16, 1]"),
        (
            {"architecture": "standard"},
            {"b_enc": torch.zeros(50, dtype=torch.int32)},
            "b_enc is [50] torch.int32",
        ),
        (
            {"architecture": "standard"},
            {"b_dec": torch.full((16,), float("nan"))},
            "b_dec is not finite",
        ),
        ({"architecture": "standard"}, {"W_enc": torch.zeros(50, 16)}, "W_enc [width, latents]"),
        ({"architecture": "standard"}, {"W_enc": torch.zeros(15, 50)}, "input width = 16"),
    ],
)
def test_what_cannot_be_encoded_with(
    tmp_path: Path, changes: dict[str, Any], extra: dict[str, Tensor], reason: str
) -> None:
    tensors = weights((50, 16)) | extra
    assert reason in not_encodable(write_saelens(tmp_path / "sae", tensors, **changes))


def test_an_encoder_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    tensors = weights((50, 16))
    tensors["W_enc"][3, 41] = float("inf")
    encoding = load_sae(write_saelens(tmp_path / "s", tensors, architecture="standard")).encoding
    assert encoding.W_enc.rows(0, 41).isfinite().all()
    with pytest.raises(InputError, match="W_enc of latent 41 is not finite"):
        encoding.W_enc.rows(20, 50)
