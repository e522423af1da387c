"""Formats of a single .pt file: OpenAI, Goodfire, DeepSeek R1, Qwen Scope."""

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
    weights,
)
from helpers.sae_writers import (
    linear_state,
    openai_state,
    write_torch,
)


def doubled(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in state.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[1] > 5])
def test_openai(tmp_path: Path, shape: tuple[int, int], activation: str, tied: bool) -> None:
    state = openai_state(shape, activation)
    if tied:
        del state["decoder.weight"]
        state["decoder.linear.weight"] = state["encoder.weight"]
    sae = load_sae(write_torch(tmp_path / "8.pt", state))
    assert sae.format == "openai"
    w = doubled(state)
    D = w["encoder.weight"] if tied else w["decoder.weight"].T
    check_rows(sae.W_dec, D.float())
    assert sae.metadata["activation"] == activation
    x = (torch.randn(40, shape[1]) * 5 + 2).double()
    mean, std = torch.zeros(40, 1), torch.ones(40, 1)
    inner = x
    if activation == "TopK":
        mean = x.mean(dim=-1, keepdim=True)
        std = (x - mean).std(dim=-1, keepdim=True)
        inner = (x - mean) / (std + 1e-5)
    u = (inner - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]
    z = torch.relu(u)
    if activation == "TopK":
        values, latents = u.topk(4, dim=-1)
        z = torch.zeros_like(u).scatter_(-1, latents, torch.relu(values))
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], z)
    assert close(actual[1], (z @ D + w["pre_bias"]) * std + mean)


def test_openai_as_published(tmp_path: Path) -> None:
    root = tmp_path / "sparse-autoencoder" / "gpt2-small"
    path = write_torch(
        root / "resid_post_mlp_v5_32k" / "autoencoders" / "8.pt", openai_state((50, 16))
    )
    sae = load_sae(path)
    assert (sae.site, sae.model_name) == ("blocks.8.hook_resid_post", "gpt2")
    others = {
        "resid_post_attn": "blocks.8.hook_resid_mid",
        "resid_delta_mlp": "blocks.8.hook_mlp_out",
        "resid_delta_attn": "blocks.8.hook_attn_out",
        "mlp_post_act": None,
    }
    for point, site in others.items():
        path = write_torch(root / point / "autoencoders" / "8.pt", openai_state((50, 16)))
        assert (load_sae(path).site, load_sae(path).model_name) == (site, "gpt2")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "Identity"}, "activation is 'Identity'; known are ReLU, and TopK"),
        ({"activation": None}, "activation is None"),
        (
            {"activation_state_dict": {"k": 4, "postact_fn": "Identity"}},
            "TopK followed by Identity",
        ),
        ({"activation_state_dict": {"k": 400}}, "k is 400"),
        ({"activation_state_dict": {}}, "k is None"),
        ({"latent_bias": torch.zeros(16)}, "latent_bias is [16]"),
    ],
)
def test_openai_that_cannot_be_encoded_with(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_torch(tmp_path / "8.pt", {**openai_state((50, 16)), **changes})
    assert reason in not_encodable(path)


@pytest.mark.parametrize(
    ("file", "names", "format", "model_name", "site"),
    [
        (
            "Llama-3.3-70B-Instruct-SAE-l50.pt",
            ("encoder_linear", "decoder_linear"),
            "goodfire",
            "meta-llama/Llama-3.3-70B-Instruct",
            "blocks.50.hook_resid_post",
        ),
        (
            "Llama-3.1-8B-Instruct-SAE-l19.pth",
            ("encoder_linear", "decoder_linear"),
            "goodfire",
            "meta-llama/Llama-3.1-8B-Instruct",
            "blocks.19.hook_resid_post",
        ),
        (
            "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
            ("encoder", "decoder"),
            "deepseek_r1",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            "blocks.19.hook_resid_post",
        ),
        ("mine.pt", ("encoder", "decoder"), "deepseek_r1", None, None),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_of_linear_layers(
    tmp_path: Path,
    shape: tuple[int, int],
    file: str,
    names: tuple[str, str],
    format: str,
    model_name: str | None,
    site: str | None,
) -> None:
    state = linear_state(shape, *names)
    path = write_torch(tmp_path / file, state)
    w = doubled(state)
    (E, e), (D, b) = ((w[f"{name}.weight"], w[f"{name}.bias"]) for name in names)
    x = torch.randn(40, shape[1]).double()
    z = torch.relu(x @ E.T + e)
    for place in (path, tmp_path):
        sae = load_sae(place)
        assert (sae.format, sae.model_name, sae.site) == (format, model_name, site)
        check_rows(sae.W_dec, D.T.float())
        actual = encode(sae.encoding, sae.W_dec, x)
        assert close(actual[0], z)
        assert close(actual[1], z @ D.T + b)


def qwen_state(shape: tuple[int, int]) -> dict[str, Tensor]:
    return {name: tensor.t().contiguous() for name, tensor in weights(shape).items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_qwen_scope(tmp_path: Path, shape: tuple[int, int]) -> None:
    k = min(6, shape[0])
    root = tmp_path / f"models--Qwen--SAE-Res-Qwen3-8B-Base-W64K-L0_{k}" / "snapshots" / "0a"
    states = {layer: qwen_state(shape) for layer in (2, 10)}
    for layer, state in states.items():
        write_torch(root / f"layer{layer}.sae.pt", state)
    for layer, state in states.items():
        w = doubled(state)
        for sae in (load_sae(root, part=layer), load_sae(root / f"layer{layer}.sae.pt")):
            assert (sae.format, sae.site) == ("qwen_scope", f"blocks.{layer}.hook_resid_post")
            assert sae.model_name == "Qwen/Qwen3-8B-Base"
            check_rows(sae.W_dec, state["W_dec"].T)
            x = torch.randn(40, shape[1]).double()
            u = x @ w["W_enc"].T + w["b_enc"]
            values, latents = u.topk(k, dim=-1)
            z = torch.zeros_like(u).scatter_(-1, latents, torch.relu(values))
            actual = encode(sae.encoding, sae.W_dec, x)
            assert close(actual[0], z)
            assert close(actual[1], z @ w["W_dec"].T + w["b_dec"])
    assert "which layer? Choose one with part=; it has 2, 10" in refused(root)


def test_qwen_scope_away_from_its_repository(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "layer7.sae.pt", qwen_state((50, 16)))
    assert load_sae(path).model_name is None
    assert "k is recorded only in the repository's name" in not_encodable(path)
