"""Formats whose own library cannot be installed: our reader beside SAELens's of the same files.

The files are written as the projects' published ones are laid out; SAELens reads them with the
loader that it uses after a download, and encodes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from safetensors import safe_open
from torch import Tensor

import deltalens
from comparison import Compared, sample
from helpers.sae_writers import (
    gemma_scope_2_state,
    linear_state,
    write_gemma_scope,
    write_gemma_scope_2,
    write_llama_scope,
    write_llama_scope_r1,
    write_torch,
)

LIBRARY = "sae-lens"
SHAPES = [(40, 12), (16, 16)]
NORM, THRESHOLD, K = 5.0, 0.75, 4

Begin = Callable[[str, str], Compared]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that SAELens takes for the hub, with repositories by their ids."""

    def download(repo_id: str, filename: str, subfolder: str = "", **options: Any) -> str:
        path = tmp_path / repo_id / subfolder / filename
        if not path.exists():
            raise EntryNotFoundError(str(path))
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(tmp_path / repo_id / filename, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


def theirs(loader: str, repo_id: str, folder: str, shape: tuple[int, int]) -> Any:
    """SAELens's object in fp32. Sizes are given, as its loaders know those of the real ones."""
    read = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader]
    sizes = {"d_sae": shape[0], "d_in": shape[1], "dtype": "float32"}
    config, state, _ = read(repo_id, folder, "cpu", False, sizes)
    config = loaders.handle_config_defaulting(config)
    kind, config_kind = get_sae_class(config["architecture"])
    sae = kind(config_kind.from_dict(config))
    sae.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return sae


def check(
    compared: Begin, what: str, sae: Any, ours: deltalens.SAE, W_dec: Tensor | None = None
) -> None:
    acts = sample(sae.cfg.d_in)
    with torch.no_grad():
        z, rebuilt = sae.encode(acts), sae(acts)
    rows = sae.W_dec if W_dec is None else W_dec
    begin = compared(LIBRARY, f"its reader of {what}")
    begin.sae(ours, acts, rows, z, rebuilt)


def gemma_scope_state(shape: tuple[int, int]) -> dict[str, Tensor]:
    F, d = shape
    return {
        "W_enc": torch.randn(d, F),
        "W_dec": torch.randn(F, d),
        "b_enc": torch.randn(F),
        "b_dec": torch.randn(d),
        "threshold": torch.rand(F),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_gemma_scope(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    repo, folder = "google/gemma-scope-2b-pt-res", "layer_7/width_16k/average_l0_71"
    path = write_gemma_scope(hub / repo / folder, gemma_scope_state(shape))
    sae = theirs("gemma_2", repo, folder, shape)
    ours = deltalens.load_sae(path)
    check(compared, "Gemma Scope", sae, ours)
    assert ours.site == sae.cfg.metadata.hook_name


@pytest.mark.parametrize("shape", SHAPES)
def test_gemma_scope_of_embeddings(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    """Our rows stay as stored; b_dec, of which SAELens forgets the scale, is zero here."""
    repo, folder = "google/gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6"
    state = {**gemma_scope_state(shape), "b_dec": torch.zeros(shape[1])}
    path = write_gemma_scope(hub / repo / folder, state)
    sae = theirs("gemma_2", repo, folder, shape)
    check(compared, "Gemma Scope", sae, deltalens.load_sae(path), state["W_dec"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("part", "affine"),
    [("resid_post", False), ("mlp_out", False), ("transcoder", False), ("transcoder", True)],
)
def test_gemma_scope_2(
    compared: Begin, hub: Path, shape: tuple[int, int], part: str, affine: bool
) -> None:
    repo, folder = "google/gemma-scope-2-1b-pt", f"{part}/layer_12_width_16k_l0_small"
    state, config = gemma_scope_2_state(shape), {}
    if part == "transcoder":
        config = {
            "hf_hook_point_in": "model.layers.12.pre_feedforward_layernorm.output",
            "hf_hook_point_out": "model.layers.12.post_feedforward_layernorm.output",
            "affine_connection": affine,
        }
        state |= {"affine_skip_connection": torch.randn(shape[1], shape[1])} if affine else {}
    path = write_gemma_scope_2(hub / repo / folder, state, **config)
    sae = theirs("gemma_3", repo, folder, shape)
    check(compared, "Gemma Scope 2", sae, deltalens.load_sae(path))


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_scope(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    """SAELens, once folded, has a threshold multiplied by the input's scale, which is undone."""
    repo, folder = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
    state = linear_state(shape)
    path = write_llama_scope(
        hub / repo / folder,
        state,
        jump_relu_threshold=THRESHOLD,
        dataset_average_activation_norm={"in": NORM, "out": NORM},
    )
    sae = theirs("llama_scope", repo, folder, shape)
    scale = shape[1] ** 0.5 / NORM
    assert torch.allclose(sae.threshold, torch.tensor(THRESHOLD * scale))
    sae.threshold.data.fill_(THRESHOLD)
    sae.fold_activation_norm_scaling_factor(scale)
    check(compared, "Llama Scope", sae, deltalens.load_sae(path), state["decoder.weight"].T)


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_scope_r1(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    repo, folder = "fnlp/Llama-Scope-R1-Distill", "800M-Slimpajama-0-OpenR1-Math-220k/L15R"
    state = {**linear_state(shape), "log_jumprelu_threshold": torch.randn(shape[0])}
    path = write_llama_scope_r1(
        hub / repo / folder,
        state,
        dataset_average_activation_norm={"in": NORM, "out": NORM},
    )
    sae = theirs("llama_scope_r1_distill", repo, folder, shape)
    sae.fold_activation_norm_scaling_factor(shape[1] ** 0.5 / NORM)
    check(compared, "Llama Scope", sae, deltalens.load_sae(path), state["decoder.weight"].T)


@pytest.mark.parametrize("shape", SHAPES)
def test_goodfire(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    repo, file = "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"
    state = linear_state(shape, "encoder_linear", "decoder_linear")
    path = write_torch(hub / repo / file, state)
    check(compared, "Goodfire", theirs("goodfire", repo, file, shape), deltalens.load_sae(path))


@pytest.mark.parametrize("shape", SHAPES)
def test_deepseek_r1(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    repo, file = "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19", "DeepSeek-R1-SAE-l19.pt"
    path = write_torch(hub / repo / file, linear_state(shape))
    sae = theirs("deepseek_r1", repo, file, shape)
    check(compared, "qresearch's DeepSeek-R1", sae, deltalens.load_sae(path))


@pytest.mark.parametrize("shape", SHAPES)
def test_qwen_scope(compared: Begin, hub: Path, shape: tuple[int, int]) -> None:
    repo, file = f"Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}", "layer7.sae.pt"
    F, d = shape
    state = {
        "W_enc": torch.randn(F, d),
        "W_dec": torch.randn(d, F),
        "b_enc": torch.randn(F),
        "b_dec": torch.randn(d),
    }
    path = write_torch(hub / repo / file, state)
    sae = theirs("qwen_scope", repo, file, shape)
    assert sae.cfg.k == K
    check(compared, "Qwen Scope", sae, deltalens.load_sae(path))
    check(compared, "Qwen Scope", sae, deltalens.load_sae(path.parent, part="7"))
