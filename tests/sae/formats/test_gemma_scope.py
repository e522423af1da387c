"""Gemma Scope's layouts, and their encoders against their formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    weights,
)
from helpers.sae_writers import (
    gemma_scope_2_state,
    write_gemma_scope,
    write_gemma_scope_2,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows(tmp_path: Path, shape: tuple[int, int]) -> None:
    tensors = {**weights(shape), "threshold": torch.rand(shape[0])}
    sae = load_sae(write_gemma_scope(tmp_path / "sae", tensors))
    assert sae.format == "gemma_scope"
    check_rows(sae.W_dec, tensors["W_dec"])
    assert torch.equal(sae.tensor("threshold"), tensors["threshold"])
    assert (sae.site, sae.model_name, sae.metadata) == (None, None, {})


def test_lower_case_names(tmp_path: Path) -> None:
    tensors = {name.lower(): tensor for name, tensor in weights((50, 16)).items()}
    sae = load_sae(write_gemma_scope(tmp_path / "sae", tensors))
    check_rows(sae.W_dec, tensors["w_dec"])


@pytest.mark.parametrize(
    ("repository", "site", "model_name"),
    [
        ("gemma-scope-2b-pt-res", "blocks.12.hook_resid_post", "google/gemma-2-2b"),
        (
            "models--google--gemma-scope-9b-it-res/snapshots/0a1b",
            "blocks.12.hook_resid_post",
            "google/gemma-2-9b-it",
        ),
        ("gemma-scope-2b-pt-mlp", "blocks.12.hook_mlp_out", "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-att", "blocks.12.attn.hook_z", "google/gemma-2-2b"),
        ("my-saes", None, None),
    ],
)
def test_what_the_path_says(
    tmp_path: Path, repository: str, site: str | None, model_name: str | None
) -> None:
    place = tmp_path / repository / "layer_12" / "width_16k" / "average_l0_82"
    sae = load_sae(write_gemma_scope(place, weights((50, 16))))
    assert (sae.site, sae.model_name) == (site, model_name)
    said = {key: sae.metadata[key] for key in ("layer", "width", "average_l0")}
    assert said == {"layer": 12, "width": "16k", "average_l0": 82}


def test_token_embeddings_are_no_layer(tmp_path: Path) -> None:
    place = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k"
    sae = load_sae(write_gemma_scope(place, weights((50, 16))))
    assert (sae.site, sae.model_name) == ("hook_embed", "google/gemma-2-2b")


def test_a_transposed_decoder_contradicts_its_biases(tmp_path: Path) -> None:
    tensors = weights((50, 16))
    tensors["W_dec"] = tensors["W_dec"].T.contiguous()
    message = refused(write_gemma_scope(tmp_path / "sae", tensors))
    assert "is [16, 50], which contradicts b_enc = 50, b_dec = 16" in message


@pytest.mark.parametrize("embedding", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoding(tmp_path: Path, shape: tuple[int, int], lower: bool, embedding: bool) -> None:
    F, d = shape
    tensors = {**weights(shape), "threshold": torch.rand(F)}
    w = {name: tensor.double() for name, tensor in tensors.items()}
    kept = {name.lower() if lower else name: tensor for name, tensor in tensors.items()}
    sae = load_sae(write_gemma_scope(tmp_path / ("embedding" if embedding else "x") / "w", kept))
    scale = d**0.5 if embedding else 1.0
    x = torch.randn(40, d)
    u = x.double() @ (w["W_enc"] / scale) + w["b_enc"]
    z = torch.relu(u) * (u > w["threshold"])
    # The whole reconstruction is of the embedding divided by √d, its bias as well.
    expected = z @ (w["W_dec"] * scale) + w["b_dec"] * scale
    actual = encode(sae.encoding, sae.W_dec, x)
    assert close(actual[0], z)
    assert torch.equal(actual[0] > 0, z > 0)
    assert close(actual[1], expected)


def test_no_threshold(tmp_path: Path) -> None:
    message = not_encodable(write_gemma_scope(tmp_path / "sae", weights((50, 16))))
    assert "no tensor 'threshold', without which" in message


def test_what_the_path_says_through_the_links_of_the_hub_cache(tmp_path: Path) -> None:
    repository = tmp_path / "models--google--gemma-scope-2b-pt-res"
    blob = write_gemma_scope(repository / "blobs", weights((50, 16))) / "params.npz"
    place = repository / "snapshots" / "0a1b" / "layer_12" / "width_16k" / "average_l0_82"
    place.mkdir(parents=True)
    (place / "params.npz").symlink_to(blob.rename(blob.with_name("5f3a")))
    assert load_sae(place).site == "blocks.12.hook_resid_post"


class TestSecondScope:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("skip", [False, True])
    def test_encoding(self, tmp_path: Path, shape: tuple[int, int], skip: bool) -> None:
        state = gemma_scope_2_state(shape)
        changes: dict[str, Any] = {}
        if skip:
            state["affine_skip_connection"] = torch.randn(shape[1], shape[1])
            changes = {"hf_hook_point_out": "model.layers.12.post_feedforward_layernorm.output"}
        sae = load_sae(write_gemma_scope_2(tmp_path / "sae", state, **changes))
        assert sae.format == "gemma_scope_2"
        check_rows(sae.W_dec, state["w_dec"])
        w = {name: tensor.double() for name, tensor in state.items()}
        x = torch.randn(40, shape[1])
        u = x.double() @ w["w_enc"] + w["b_enc"]
        z = torch.relu(u) * (u > w["threshold"])
        expected = z @ w["w_dec"] + w["b_dec"]
        if skip:
            expected = expected + x.double() @ w["affine_skip_connection"]
        actual = encode(sae.encoding, sae.W_dec, x)
        assert close(actual[0], z)
        assert close(actual[1], expected)

    @pytest.mark.parametrize(
        ("changes", "site", "model_name"),
        [
            ({}, "blocks.12.hook_resid_post", "google/gemma-3-1b-pt"),
            (
                {"hf_hook_point_in": "model.layers.3.self_attn.o_proj.input"},
                "blocks.3.attn.hook_z",
                "google/gemma-3-1b-pt",
            ),
            (
                {
                    "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
                    "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
                    "model_name": "google/gemma-3-270m-pt",
                },
                "blocks.3.hook_mlp_out",
                "google/gemma-3-270m",
            ),
            ({"hf_hook_point_in": "elsewhere", "model_name": None}, None, None),
        ],
    )
    def test_site_and_model(
        self, tmp_path: Path, changes: dict[str, Any], site: str | None, model_name: str | None
    ) -> None:
        state = gemma_scope_2_state((50, 16))
        sae = load_sae(write_gemma_scope_2(tmp_path / "sae", state, **changes))
        assert (sae.site, sae.model_name) == (site, model_name)

    def test_a_cross_layer_transcoder_by_target_layer(self, tmp_path: Path) -> None:
        state = gemma_scope_2_state((50, 16), layers=6)
        out = "model.layers.2.post_feedforward_layernorm.output"
        place = tmp_path / "clt" / "layer_2"
        write_gemma_scope_2(place, state, hf_hook_point_out=out)
        for target in (2, 5):
            sae = load_sae(place, part=target)
            check_rows(sae.W_dec, state["w_dec"][:, target])
            assert sae.site == f"blocks.{target}.hook_mlp_out"
            w = {name: tensor.double() for name, tensor in state.items()}
            x = torch.randn(40, 16)
            u = x.double() @ w["w_enc"] + w["b_enc"]
            z = torch.relu(u) * (u > w["threshold"])
            actual = encode(sae.encoding, sae.W_dec, x)
            assert close(actual[0], z)
            assert close(actual[1], z @ w["w_dec"][:, target])
        message = refused(place)
        assert "which target layer? Choose one with part=; it has 2, 3, 4, 5" in message
        assert "no target layer '1'; it has 2, 3" in refused(place, part=1)

    def test_what_it_is_not(self, tmp_path: Path) -> None:
        state = gemma_scope_2_state((50, 16))
        place = write_gemma_scope_2(tmp_path / "sae", state, architecture="topk")
        assert "architecture 'topk' is not jump_relu" in not_encodable(place)
        assert "part='3', but this is no cross-layer transcoder" in refused(place, part="3")
        del state["threshold"]
        place = write_gemma_scope_2(tmp_path / "b", state)
        assert "no tensor 'threshold'" in not_encodable(place)
