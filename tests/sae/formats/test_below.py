"""All SAEs below a directory, in the layouts that libraries publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deltalens.errors import InputError
from deltalens.sae import load_sae
from deltalens.sae.formats.below import saes_below
from helpers.sae_writers import (
    batch_topk_state,
    gemma_scope_2_state,
    linear_state,
    openai_state,
    sparsify_state,
    transcoder_state,
    write_cross_layer,
    write_dictionary_learning,
    write_gemma_scope,
    write_gemma_scope_2,
    write_llama_scope,
    write_saelens,
    write_sparsify,
    write_torch,
    write_transcoders,
)

SHAPE = (40, 16)


def jump_relu() -> dict[str, torch.Tensor]:
    n, d = SHAPE
    return {
        "W_enc": torch.randn(d, n),
        "W_dec": torch.randn(n, d),
        "b_enc": torch.zeros(n),
        "b_dec": torch.zeros(d),
        "threshold": torch.ones(n),
    }


def resid(*layers: int) -> list[str]:
    return [f"blocks.{layer}.hook_resid_post" for layer in layers]


def sites(root: Path, **options: str) -> list[str | None]:
    return [sae.site for sae in saes_below(root, **options)]


def test_a_folder_for_each_hook(tmp_path: Path) -> None:
    tensors = {name: value for name, value in jump_relu().items() if name != "threshold"}
    for layer in (0, 1):
        hook = f"blocks.{layer}.hook_resid_pre"
        write_saelens(tmp_path / hook, tensors, metadata={"hook_name": hook})
    assert sites(tmp_path) == ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]


def test_gemma_scope(tmp_path: Path) -> None:
    root = tmp_path / "gemma-scope-2b-pt-res"
    for place in ("layer_3/width_16k/average_l0_60", "layer_12/width_16k/average_l0_82"):
        write_gemma_scope(root / place, jump_relu())
    assert sites(root) == resid(3, 12)
    assert sites(root / "layer_3") == resid(3)


def test_gemma_scope_2(tmp_path: Path) -> None:
    for layer in (3, 4):
        write_gemma_scope_2(
            tmp_path / f"resid_post/layer_{layer}_width_16k_l0_small",
            gemma_scope_2_state(SHAPE),
            hf_hook_point_in=f"model.layers.{layer}.output",
            hf_hook_point_out=f"model.layers.{layer}.output",
        )
    assert sites(tmp_path) == resid(3, 4)


def test_llama_scope(tmp_path: Path) -> None:
    for layer in (5, 6):
        write_llama_scope(
            tmp_path / f"Llama3_1-8B-Base-L{layer}R-8x",
            linear_state(SHAPE),
            hook_point_in=resid(layer)[0],
            hook_point_out=resid(layer)[0],
        )
    assert sites(tmp_path) == resid(5, 6)


def test_dictionary_learning(tmp_path: Path) -> None:
    for layer in (3, 7):
        for trainer in (0, 1):
            write_dictionary_learning(
                tmp_path / f"resid_post_layer_{layer}/trainer_{trainer}",
                batch_topk_state(SHAPE),
                SHAPE,
                submodule_name=f"resid_post_layer_{layer}",
            )
    assert sites(tmp_path) == resid(3, 3, 7, 7)


def test_sparsify(tmp_path: Path) -> None:
    for name in ("layers.1", "layers.2"):
        write_sparsify(tmp_path / "run" / name, sparsify_state(SHAPE))
    for root in (tmp_path, tmp_path / "run"):
        found = saes_below(root)
        assert [(sae.site, sae.part) for sae in found] == [("layers.1",) * 2, ("layers.2",) * 2]
    again = load_sae(found[1].path, part=found[1].part)
    assert again.fingerprint == found[1].fingerprint


def test_transcoders_by_layer_and_across(tmp_path: Path) -> None:
    write_transcoders(tmp_path / "set", {layer: transcoder_state(SHAPE) for layer in range(3)})
    assert [sae.part for sae in saes_below(tmp_path)] == ["0", "1", "2"]
    assert sites(tmp_path)[1] == "blocks.1.hook_mlp_out"
    write_cross_layer(tmp_path / "across", SHAPE, layers=2)
    assert [sae.part for sae in saes_below(tmp_path / "across")] == ["0:0", "0:1", "1:1"]


def test_files_of_one_folder(tmp_path: Path) -> None:
    place = tmp_path / "gpt2-small/resid_post_mlp_v5_32k/autoencoders"
    for layer in (8, 9):
        write_torch(place / f"{layer}.pt", openai_state(SHAPE))
    assert sites(tmp_path) == resid(8, 9)
    n, d = SHAPE
    state = {"W_dec": torch.randn(d, n), "W_enc": torch.randn(n, d)}
    state |= {"b_enc": torch.zeros(n), "b_dec": torch.zeros(d)}
    for layer in (0, 10):
        write_torch(tmp_path / f"qwen/layer{layer}.sae.pt", state)
    assert sites(tmp_path / "qwen") == resid(0, 10)


def test_an_sae_itself_and_what_is_none(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.3", sparsify_state(SHAPE))
    assert sites(tmp_path / "layers.3") == ["layers.3"]
    np.save(tmp_path / "rows.npy", np.ones(SHAPE, dtype=np.float32))
    (tmp_path / "damaged.pt").write_bytes(b"no torch file")
    assert sites(tmp_path) == ["layers.3"]
    assert saes_below(tmp_path / "rows.npy") == []
    with pytest.raises(InputError, match="no such file"):
        saes_below(tmp_path / "nowhere")


def test_one_format_only(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "a" / "layers.3", sparsify_state(SHAPE))
    write_gemma_scope(tmp_path / "gemma-scope-2b-pt-res/layer_3/width_16k", jump_relu())
    assert sites(tmp_path, format="sparsify") == ["layers.3"]
    assert sites(tmp_path, format="gemma_scope") == resid(3)
