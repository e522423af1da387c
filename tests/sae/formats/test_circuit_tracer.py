"""circuit-tracer's transcoders by layer, and cross-layer ones by source and target."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
    transcoder_state,
    write_cross_layer,
    write_transcoders,
)


@pytest.mark.parametrize("jump", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoding(tmp_path: Path, shape: tuple[int, int], skip: bool, jump: bool) -> None:
    states = {layer: transcoder_state(shape) for layer in range(3)}
    for state in states.values():
        if skip:
            state["W_skip"] = torch.randn(shape[1], shape[1])
        if jump:
            state["activation_function.threshold"] = torch.rand(shape[0])
    root = write_transcoders(tmp_path / "set", states)
    for layer, state in states.items():
        sae = load_sae(root, part=layer)
        assert (sae.format, sae.model_name) == ("circuit_tracer", "google/gemma-2-2b")
        assert sae.site == f"blocks.{layer}.hook_mlp_out"
        check_rows(sae.W_dec, state["W_dec"])
        w = {name: tensor.double() for name, tensor in state.items()}
        x = torch.randn(40, shape[1]).double()
        u = x @ w["W_enc"].T + w["b_enc"]
        z = u * (u > w["activation_function.threshold"]) if jump else torch.relu(u)
        expected = z @ w["W_dec"] + w["b_dec"]
        if skip:
            expected = expected + x @ w["W_skip"].T
        actual = encode(sae.encoding, sae.W_dec, x)
        assert close(actual[0], z)
        assert close(actual[1], expected)


def test_the_layer_is_asked_for(tmp_path: Path) -> None:
    states = {layer: transcoder_state((50, 16)) for layer in range(11)}
    root = write_transcoders(tmp_path / "set", states)
    message = refused(root)
    assert "which layer? Choose one with part=; it has 0, 1, 2, 3, 4, 5, 6, 7 … 10" in message
    assert "no layer '11'; it has 0, 1" in refused(root, part=11)
    check_rows(load_sae(root / "layer_10.safetensors").W_dec, states[10]["W_dec"])
    assert load_sae(root / "layer_10.safetensors").site == "blocks.10.hook_mlp_out"


@pytest.mark.parametrize("shape", [(97, 96), (96, 97), (1000, 32)])
def test_older_files_have_their_encoder_transposed(tmp_path: Path, shape: tuple[int, int]) -> None:
    state = transcoder_state(shape)
    older = {**state, "W_enc": state["W_enc"].T}
    sae = load_sae(write_transcoders(tmp_path / "set", {0: older}))
    assert torch.equal(sae.encoding.W_enc.rows(0, shape[0]), state["W_enc"])
    check_rows(sae.W_dec, state["W_dec"])


def test_a_decoder_the_wrong_way_round(tmp_path: Path) -> None:
    state = transcoder_state((50, 16))
    state["W_dec"] = state["W_dec"].T
    message = refused(write_transcoders(tmp_path / "set", {0: state}))
    assert "W_dec [latents, width] is [16, 50], which contradicts b_enc = 50, b_dec = 16" in message


def test_a_cross_layer_transcoder(tmp_path: Path) -> None:
    root = tmp_path / "clt"
    every = write_cross_layer(root, (50, 16), layers=3)
    for source, target in [(0, 0), (0, 2), (1, 2), (2, 2)]:
        sae = load_sae(root, part=f"{source}:{target}")
        rows = every[f"W_dec_{source}"][:, target - source]
        check_rows(sae.W_dec, rows)
        assert sae.site == f"blocks.{target}.hook_mlp_out"
        assert torch.equal(sae.tensor(f"b_enc_{source}"), every[f"b_enc_{source}"])
        x = torch.randn(40, 16).double()
        u = x @ every[f"W_enc_{source}"].double().T + every[f"b_enc_{source}"].double()
        z = u * (u > every[f"threshold_{source}"].double())
        actual = encode(sae.encoding, sae.W_dec, x)
        assert close(actual[0], z)
        assert close(actual[1], z @ rows.double())
    listed = "it has 0:0, 0:1, 0:2, 1:1, 1:2, 2:2"
    assert f"which source:target? Choose one with part=; {listed}" in refused(root)
    assert f"no source:target '2:1'; {listed}" in refused(root, part="2:1")


def test_the_parts_of_a_cross_layer_transcoder_are_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "clt"
    write_cross_layer(root, (50, 16))
    assert load_sae(root, part="0:1").fingerprint != load_sae(root, part="0:2").fingerprint


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    root = tmp_path / "clt"
    write_cross_layer(root, (50, 16))
    (root / "config.yaml").write_text("model_name: [")
    assert "config.yaml: not YAML" in refused(root, part="0:0")
    (root / "config.yaml").write_text("- 1")
    assert "a YAML list, expected a mapping" in refused(root, part="0:0")
    (root / "config.yaml").unlink()
    (root / "W_dec_1.safetensors").unlink()
    assert "W_dec_1.safetensors: no such file" in refused(root, part="0:0")


def test_thresholds_of_another_size(tmp_path: Path) -> None:
    state = transcoder_state((50, 16)) | {"activation_function.threshold": torch.rand(49)}
    message = not_encodable(write_transcoders(tmp_path / "set", {0: state}))
    assert "activation_function.threshold is [49]" in message
