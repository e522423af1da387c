"""dictionary_learning's layout, and its encoders against its formulas."""

from __future__ import annotations

from pathlib import Path

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
    batch_topk_state,
    write_dictionary_learning,
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_decoder_weight(tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype) -> None:
    state = batch_topk_state(shape, dtype)
    sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, shape))
    assert sae.format == "dictionary_learning"
    check_rows(sae.W_dec, state["decoder.weight"].T)
    assert torch.equal(sae.tensor("encoder.weight"), state["encoder.weight"])
    assert sae.tensor("k") == 64


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_W_dec(tmp_path: Path, shape: tuple[int, int]) -> None:
    state = {**weights(shape), "threshold": torch.rand(shape[0])}
    sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, shape))
    check_rows(sae.W_dec, state["W_dec"])


def test_parameters_and_non_contiguous_tensors(tmp_path: Path) -> None:
    decoder = torch.nn.Parameter(torch.randn(50, 16).T)
    sae = load_sae(
        write_dictionary_learning(tmp_path / "sae", {"decoder.weight": decoder}, (50, 16))
    )
    check_rows(sae.W_dec, decoder.detach().T)


def test_site_and_model(tmp_path: Path) -> None:
    state = batch_topk_state((50, 16))
    sae = load_sae(write_dictionary_learning(tmp_path / "a", state, (50, 16)))
    assert sae.site == "blocks.15.hook_resid_post"
    assert sae.model_name == "meta-llama/Llama-3.1-8B-Instruct"
    assert sae.metadata["buffer"] == {"ctx_len": 2048}
    changes = {"submodule_name": "mlp_layer_15"}
    sae = load_sae(write_dictionary_learning(tmp_path / "b", state, (50, 16), **changes))
    assert sae.site == "blocks.15.mlp.hook_out"
    changes = {"submodule_name": None}
    sae = load_sae(write_dictionary_learning(tmp_path / "c", state, (50, 16), **changes))
    assert sae.site is None


def test_sizes_other_than_configured(tmp_path: Path) -> None:
    state = batch_topk_state((16, 50))
    message = refused(write_dictionary_learning(tmp_path / "sae", state, (50, 16)))
    assert "decoder.weight [width, latents] is [50, 16], which contradicts" in message
    assert "dict_size = 50, activation_dim = 16" in message


def test_without_configuration(tmp_path: Path) -> None:
    state = batch_topk_state((50, 16))
    directory = write_dictionary_learning(tmp_path / "sae", state, (50, 16))
    (directory / "config.json").unlink()
    message = refused(directory)
    assert "config.json is missing, found ae.pt with encoder.weight [50, 16]" in message


def test_a_state_dict_of_something_else(tmp_path: Path) -> None:
    state = {"pre_bias": torch.zeros(16), "latent_bias": torch.zeros(50)}
    directory = write_dictionary_learning(tmp_path / "sae", state, (50, 16))
    message = refused(directory, format="dictionary_learning")
    assert "neither decoder.weight nor W_dec; it has pre_bias [16]" in message


def state_of(dict_class: str, shape: tuple[int, int]) -> dict[str, Tensor]:
    F, d = shape
    linear = {"encoder.weight": torch.randn(F, d), "decoder.weight": torch.randn(d, F)}
    named = {name: torch.randn(F) for name in ("r_mag", "gate_bias", "mag_bias")}
    bias = {"encoder.bias": torch.randn(F)}
    threshold = {"threshold": torch.tensor(0.3), "k": torch.tensor(min(3, F), dtype=torch.int)}
    return {
        "AutoEncoder": {**linear, **bias, "bias": torch.randn(d)},
        "AutoEncoderNew": {**linear, **bias, "decoder.bias": torch.randn(d)},
        "GatedAutoEncoder": {**linear, **named, "decoder_bias": torch.randn(d)},
        "AutoEncoderTopK": {**linear, **bias, **threshold, "b_dec": torch.randn(d)},
        "BatchTopKSAE": {**linear, **bias, **threshold, "b_dec": torch.randn(d)},
        "JumpReluAutoEncoder": {**weights(shape), "threshold": torch.rand(F)},
        "MatryoshkaBatchTopKSAE": {
            **weights(shape),
            **threshold,
            "group_sizes": torch.tensor([F // 2, F - F // 2]),
        },
    }[dict_class]


def original(dict_class: str, w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Each class's encode and decode after from_pretrained."""
    if dict_class == "AutoEncoder":
        norms = w["decoder.weight"].norm(dim=0)
        W, b, D = w["encoder.weight"] * norms[:, None], w["encoder.bias"] * norms, norms
        z = torch.relu((x - w["bias"]) @ W.T + b)
        return z, z @ (w["decoder.weight"] / D).T + w["bias"]
    if dict_class == "AutoEncoderNew":
        z = torch.relu(x @ w["encoder.weight"].T + w["encoder.bias"])
        return z, z @ w["decoder.weight"].T + w["decoder.bias"]
    if dict_class == "GatedAutoEncoder":
        inner = (x - w["decoder_bias"]) @ w["encoder.weight"].T
        magnitude = torch.relu(w["r_mag"].exp() * inner + w["mag_bias"])
        z = (inner + w["gate_bias"] > 0).double() * magnitude
        return z, z @ w["decoder.weight"].T + w["decoder_bias"]
    if dict_class == "JumpReluAutoEncoder":
        u = x @ w["W_enc"] + w["b_enc"]
        z = torch.relu(u * (u > w["threshold"]))
        return z, z @ w["W_dec"] + w["b_dec"]
    if dict_class == "MatryoshkaBatchTopKSAE":
        z = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        z = z * (z > w["threshold"])
        return z, z @ w["W_dec"] + w["b_dec"]
    z = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    if dict_class == "BatchTopKSAE":
        z = z * (z > w["threshold"])
    else:
        values, latents = z.topk(int(w["k"]), dim=-1)
        z = torch.zeros_like(z).scatter_(-1, latents, values)
    return z, z @ w["decoder.weight"].T + w["b_dec"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "dict_class",
    [
        "AutoEncoder",
        "AutoEncoderNew",
        "GatedAutoEncoder",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "JumpReluAutoEncoder",
        "MatryoshkaBatchTopKSAE",
    ],
)
def test_encoding(tmp_path: Path, dict_class: str, shape: tuple[int, int]) -> None:
    state = state_of(dict_class, shape)
    place = tmp_path / "sae"
    sae = load_sae(write_dictionary_learning(place, state, shape, dict_class=dict_class))
    x = torch.randn(40, shape[1])
    doubled = {name: tensor.double() for name, tensor in state.items()}
    z, reconstruction = original(dict_class, doubled, x.double())
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], z)
    assert torch.equal(actual[0] > 0, z > 0)
    assert close(actual[1], reconstruction)


@pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_threshold_that_was_never_set(tmp_path: Path, dict_class: str) -> None:
    state = state_of(dict_class, (50, 16)) | {"threshold": torch.tensor(-1.0)}
    place = tmp_path / "sae"
    path = write_dictionary_learning(place, state, (50, 16), dict_class=dict_class)
    assert "threshold is -1, which says that training ended before" in not_encodable(path)


@pytest.mark.parametrize(
    ("dict_class", "changes", "reason"),
    [
        ("IdentityDict", {}, "names dict_class 'IdentityDict'; known are AutoEncoder, "),
        (None, {}, "names dict_class None"),
        ("BatchTopKSAE", {"threshold": None}, "no tensor 'threshold', without which"),
        ("BatchTopKSAE", {"threshold": torch.rand(7)}, "threshold is [7]"),
        (
            "BatchTopKSAE",
            {"encoder.weight": torch.randn(16, 50)},
            "encoder.weight [latents, width]",
        ),
        ("AutoEncoderTopK", {"k": torch.tensor(0)}, "k is 0; expected a whole number from 1"),
        ("AutoEncoder", {}, "no tensor 'bias'; it has encoder.weight [50, 16]"),
    ],
)
def test_what_cannot_be_encoded_with(
    tmp_path: Path, dict_class: str | None, changes: dict[str, Tensor | None], reason: str
) -> None:
    state = {**batch_topk_state((50, 16)), **changes}
    present = {name: tensor for name, tensor in state.items() if tensor is not None}
    place = tmp_path / "sae"
    path = write_dictionary_learning(place, present, (50, 16), dict_class=dict_class)
    assert reason in not_encodable(path)
