"""Llama Scope's two layouts, and their encoders against the library's formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.sae import load_sae
from helpers.sae_checks import (
    SHAPES,
    check_rows,
    close,
    encode,
    not_encodable,
    refused,
)
from helpers.sae_writers import (
    linear_state,
    write_llama_scope,
    write_llama_scope_r1,
)


def check_encoding(
    path: Path, state: dict[str, Tensor], scales: tuple[float, float], threshold: Tensor | float
) -> None:
    """Input times a scale, threshold on what comes of that, output divided by a scale."""
    sae = load_sae(path)
    assert sae.format == "llama_scope"
    check_rows(sae.W_dec, state["decoder.weight"].T)
    w = {name: tensor.double() for name, tensor in state.items()}
    x = torch.randn(40, sae.W_dec.d_model).double()
    u = scales[0] * x @ w["encoder.weight"].T + w["encoder.bias"]
    z = torch.relu(u) * (u > threshold)
    expected = (z @ w["decoder.weight"].T + w["decoder.bias"]) / scales[1]
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], z)
    assert torch.equal(actual[0] > 0, z > 0)
    assert close(actual[1], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_encoding(tmp_path: Path, shape: tuple[int, int]) -> None:
    state = linear_state(shape)
    path = write_llama_scope(tmp_path / "Llama3_1-8B-Base-L15R-8x", state)
    s = shape[1] ** 0.5 / 6.25
    check_encoding(path, state, (s, s), 0.75)
    sae = load_sae(path / "checkpoints" / "final.safetensors")
    assert (sae.site, sae.model_name) == ("blocks.15.hook_resid_post", "meta-llama/Llama-3.1-8B")


def test_the_scale_folded_into_the_weights_is_the_same_sae(tmp_path: Path) -> None:
    state = linear_state((50, 16))
    sae = load_sae(write_llama_scope(tmp_path / "a", state))
    s = 4 / 6.25
    folded = {
        "encoder.weight": state["encoder.weight"] * s,
        "encoder.bias": state["encoder.bias"],
        "decoder.weight": state["decoder.weight"] / s,
        "decoder.bias": state["decoder.bias"] / s,
    }
    other = load_sae(write_llama_scope(tmp_path / "b", folded, norm_activation="inference"))
    x = torch.randn(40, 16)
    pairs = zip(
        encode(sae.encoding, sae.W_dec, x), encode(other.encoding, other.W_dec, x), strict=True
    )
    assert all(close(one, two) for one, two in pairs)


def test_a_transcoder_has_two_scales(tmp_path: Path) -> None:
    state = linear_state((50, 16))
    changes = {
        "hook_point_in": "blocks.8.ln2.hook_normalized",
        "hook_point_out": "blocks.8.hook_mlp_out",
        "dataset_average_activation_norm": {"in": 64.0, "out": 3.390625},
    }
    path = write_llama_scope(tmp_path / "sae", state, **changes)
    check_encoding(path, state, (4 / 64, 4 / 3.390625), 0.75)
    assert load_sae(path).site == "blocks.8.hook_mlp_out"


def test_thresholds_by_latent(tmp_path: Path) -> None:
    state = linear_state((64, 16))
    logs = torch.randn(64) * 0.3
    norm = torch.tensor(8.5)
    held = state | {
        "log_jumprelu_threshold": logs,
        "dataset_average_activation_norm.blocks.15.hook_resid_post": norm,
    }
    path = write_llama_scope_r1(tmp_path / "Llama-Scope-R1-Distill" / "L15R", held)
    check_encoding(path, state, (4 / 8.5, 4 / 8.5), logs.double().exp())
    assert load_sae(path).model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"


def test_the_decoder_norm_takes_part_where_the_configuration_says_so(tmp_path: Path) -> None:
    state = linear_state((50, 16))
    sae = load_sae(write_llama_scope(tmp_path / "a", state, sparsity_include_decoder_norm=True))
    w = {name: tensor.double() for name, tensor in state.items()}
    norms = w["decoder.weight"].norm(dim=0)
    x, s = torch.randn(40, 16).double(), 4 / 6.25
    u = s * x @ w["encoder.weight"].T + w["encoder.bias"]
    acts = torch.relu(u) * (u * norms > 0.75)
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], acts * norms)
    assert close(actual[1], (acts @ w["decoder.weight"].T + w["decoder.bias"]) / s)


@pytest.mark.parametrize("act_fn", ["relu", "topk"])
def test_other_activations(tmp_path: Path, act_fn: str) -> None:
    state = linear_state((50, 16))
    sae = load_sae(write_llama_scope(tmp_path / "a", state, act_fn=act_fn, top_k=7))
    z, _ = encode(sae.encoding, sae.W_dec, torch.randn(40, 16))
    assert int((z > 0).sum(1).max()) == 7 if act_fn == "topk" else (z > 0).sum(1).max() > 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"act_fn": "tanh"}, "act_fn = 'tanh'"),
        ({"use_glu_encoder": True}, "its encoder has a GLU"),
        ({"norm_activation": "token-wise"}, "norm_activation = 'token-wise'"),
        ({"dataset_average_activation_norm": {}}, "in is None; expected a positive number"),
        ({"dataset_average_activation_norm": {"in": 0}}, "in is 0; expected a positive number"),
        ({"jump_relu_threshold": None}, "jump_relu_threshold is None"),
    ],
)
def test_what_cannot_be_encoded_with(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write_llama_scope(tmp_path / "sae", linear_state((50, 16)), **changes)
    assert reason in not_encodable(path)


def test_no_threshold(tmp_path: Path) -> None:
    state = linear_state((48, 16))
    norms = {"dataset_average_activation_norm": {"in": 6.0}}
    message = not_encodable(write_llama_scope_r1(tmp_path / "sae", state, **norms))
    assert "neither log_jumprelu_threshold here nor jump_relu_threshold in config.json" in message


def test_sizes_other_than_configured(tmp_path: Path) -> None:
    path = write_llama_scope(tmp_path / "sae", linear_state((50, 16)), d_sae=16, d_model=50)
    message = refused(path)
    assert "is [16, 50], which contradicts d_sae = 16, d_model = 50" in message
