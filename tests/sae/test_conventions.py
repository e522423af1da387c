"""Conventions that other loaders are known to have got wrong, one test each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from deltalens.sae import load_sae
from helpers.sae_checks import (
    check_rows,
    encode,
    refused,
)
from helpers.sae_writers import (
    batch_topk_state,
    linear_state,
    sparsify_state,
    transcoder_state,
    write_dictionary_learning,
    write_llama_scope,
    write_sparsify,
    write_torch,
    write_transcoders,
)


def test_sparsify_has_its_decoder_by_row(tmp_path: Path) -> None:
    state = sparsify_state((64, 64))
    check_rows(load_sae(write_sparsify(tmp_path / "sae", state)).W_dec, state["W_dec"])


def test_sparsify_keeps_its_dtype(tmp_path: Path) -> None:
    sae = load_sae(write_sparsify(tmp_path / "sae", sparsify_state((50, 16))))
    assert sae.W_dec.dtype == sae.encoding.W_enc.dtype == torch.float32


@pytest.mark.parametrize("normalize_decoder", [False, True])
def test_sparsify_subtracts_its_bias_whether_or_not_its_decoder_is_normalised(
    tmp_path: Path, normalize_decoder: bool
) -> None:
    path = write_sparsify(
        tmp_path / "sae", sparsify_state((50, 16)), normalize_decoder=normalize_decoder
    )
    assert load_sae(path).encoding.subtract_b_dec


def test_batch_topk_fires_by_its_threshold_and_not_as_a_relu_nor_by_token(tmp_path: Path) -> None:
    state = batch_topk_state((500, 16)) | {"threshold": torch.tensor(6.0), "k": torch.tensor(64)}
    sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, (500, 16)))
    x = torch.randn(200, 16)
    z, _ = encode(sae.encoding, sae.W_dec, x)
    before = (x - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]
    active = (z > 0).sum(1)
    assert torch.equal(active, (before > 6.0).sum(1))
    assert active.float().mean() < 0.5 * (before > 0).sum(1).float().mean()
    assert active.unique().numel() > 1  # no fixed number per token
    assert float(z[z > 0].min()) > 6.0


def test_the_hook_is_not_assumed(tmp_path: Path) -> None:
    state = batch_topk_state((50, 16))
    changes = {"submodule_name": "attention_layer_7"}
    sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, (50, 16), **changes))
    assert sae.site == "blocks.7.attn.hook_out"


def test_the_bias_of_batch_topk_is_b_dec_and_no_other(tmp_path: Path) -> None:
    state = batch_topk_state((50, 16))
    sae = load_sae(write_dictionary_learning(tmp_path / "a", state, (50, 16)))
    assert torch.equal(sae.encoding.b_dec, state["b_dec"])
    assert sae.encoding.subtract_b_dec


def test_transcoders_are_by_row_on_both_sides(tmp_path: Path) -> None:
    state = transcoder_state((64, 64))
    sae = load_sae(write_transcoders(tmp_path / "set", {0: state}))
    check_rows(sae.W_dec, state["W_dec"])
    assert torch.equal(sae.encoding.W_enc.rows(0, 64), state["W_enc"])


@pytest.mark.parametrize("shape", [(64, 64), (63, 64), (64, 63)])
def test_orientation_is_the_formats_and_not_the_shapes(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    by_column = linear_state(shape)
    sae = load_sae(write_torch(tmp_path / "a.pt", by_column))
    check_rows(sae.W_dec, by_column["decoder.weight"].T)
    by_row = sparsify_state(shape)
    sae = load_sae(write_sparsify(tmp_path / "b", by_row))
    check_rows(sae.W_dec, by_row["W_dec"])


def test_the_threshold_of_llama_scope_is_not_scaled_with_its_input(tmp_path: Path) -> None:
    sae = load_sae(write_llama_scope(tmp_path / "sae", linear_state((50, 16))))
    assert sae.encoding.input_scale == 4 / 6.25
    assert sae.encoding.activation.threshold.unique().tolist() == [0.75]  # type: ignore[union-attr]


class Opens:
    """What a hostile pickle would do."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.victim), "w")


@pytest.mark.parametrize("name", ["ae.pt", "sae.pt", "layer3.sae.pt", "SAE-l3.pth"])
def test_a_foreign_pickle_is_refused_by_every_format_of_its_name(tmp_path: Path, name: str) -> None:
    path = write_torch(tmp_path / name, {**linear_state((5, 2)), "x": Opens(tmp_path / "victim")})
    (tmp_path / "config.json").write_text("{}")
    assert "refused: it pickles more than tensors (" in refused(path)
    assert not (tmp_path / "victim").exists()


def test_an_error_about_what_is_unknown_stays_short(tmp_path: Path) -> None:
    many = {f"blocks.{i}.mlp.down_proj.weight": torch.zeros(3, 2) for i in range(400)}
    for i in range(30):
        safetensors.torch.save_file(many, tmp_path / f"part_{i:02}.safetensors")
        np.save(tmp_path / f"x_{i:02}.npy", np.zeros((3, 2)))
    message = refused(tmp_path).replace(str(tmp_path), "")
    assert "part_00.safetensors with blocks." in message
    assert "tried dictionary_learning, " in message
    assert len(message) < 600
