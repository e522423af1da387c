"""Checkpoints as their projects write them, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

from helpers.sae_checks import weights


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def write_saelens(directory: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir(parents=True)
    safetensors.torch.save_file(tensors, directory / "sae_weights.safetensors")
    d_sae, d_in = tensors["W_dec"].shape
    config = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {
            "sae_lens_version": "6.22.1",
            "model_name": "gpt2-small",
            "hook_name": "blocks.8.hook_resid_post",
        },
        **changes,
    }
    (directory / "cfg.json").write_text(json.dumps(config))
    return directory


def write_gemma_scope(directory: Path, tensors: dict[str, Tensor]) -> Path:
    directory.mkdir(parents=True)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(directory / "params.npz", **arrays)
    return directory


def write_dictionary_learning(
    directory: Path, state: dict[str, Tensor], shape: tuple[int, int], **changes: Any
) -> Path:
    directory.mkdir(parents=True)
    torch.save(state, directory / "ae.pt")
    trainer = {
        "dict_class": "BatchTopKSAE",
        "activation_dim": shape[1],
        "dict_size": shape[0],
        "k": 64,
        "layer": 15,
        "lm_name": "meta-llama/Llama-3.1-8B-Instruct",
        "submodule_name": "resid_post_layer_15",
        **changes,
    }
    config = {"trainer": trainer, "buffer": {"ctx_len": 2048}}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def batch_topk_state(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    F, d = shape
    return {
        "encoder.weight": torch.randn(F, d).to(dtype),
        "encoder.bias": torch.randn(F).to(dtype),
        "decoder.weight": torch.randn(d, F).to(dtype),
        "b_dec": torch.randn(d).to(dtype),
        "k": torch.tensor(64),
        "threshold": torch.tensor(0.25),
    }


def linear_state(
    shape: tuple[int, int], encoder: str = "encoder", decoder: str = "decoder"
) -> dict[str, Tensor]:
    F, d = shape
    return {
        f"{encoder}.weight": torch.randn(F, d),
        f"{encoder}.bias": torch.randn(F),
        f"{decoder}.weight": torch.randn(d, F),
        f"{decoder}.bias": torch.randn(d),
    }


def write_torch(path: Path, state: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def openai_state(shape: tuple[int, int], activation: str = "TopK") -> dict[str, Any]:
    F, d = shape
    state: dict[str, Any] = {
        "pre_bias": torch.randn(d),
        "encoder.weight": torch.randn(F, d),
        "latent_bias": torch.randn(F),
        "decoder.weight": torch.randn(d, F),
        "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
        "latents_activation_frequency": torch.ones(F),
        "latents_mean_square": torch.zeros(F),
        "activation": activation,
    }
    if activation == "TopK":
        state["activation_state_dict"] = {"k": min(4, F), "postact_fn": "ReLU"}
    return state


def sparsify_state(shape: tuple[int, int], skip: bool = False) -> dict[str, Tensor]:
    F, d = shape
    state = {
        "encoder.weight": torch.randn(F, d),
        "encoder.bias": torch.randn(F),
        "W_dec": torch.randn(F, d),
        "b_dec": torch.randn(d),
    }
    return {**state, "W_skip": torch.randn(d, d)} if skip else state


def write_sparsify(directory: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir(parents=True)
    safetensors.torch.save_file(state, directory / "sae.safetensors")
    F, d = state["W_dec"].shape
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": F,
        "k": min(4, F),
        "multi_topk": False,
        "skip_connection": "W_skip" in state,
        "transcode": False,
        "d_in": d,
        **changes,
    }
    (directory / "cfg.json").write_text(json.dumps(config))
    return directory


def write_llama_scope(directory: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    (directory / "checkpoints").mkdir(parents=True)
    safetensors.torch.save_file(state, directory / "checkpoints" / "final.safetensors")
    d, F = state["decoder.weight"].shape
    config = {
        "d_model": d,
        "d_sae": F,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.75,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 6.25, "out": 6.25},
        "top_k": 50,
        **changes,
    }
    (directory / "hyperparams.json").write_text(json.dumps(config))
    return directory


def write_llama_scope_r1(directory: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir(parents=True)
    safetensors.torch.save_file(state, directory / "sae_weights.safetensors")
    d, F = state["decoder.weight"].shape
    config = {
        "d_model": d,
        "expansion_factor": F / d,
        "hook_point_in": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        **changes,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def gemma_scope_2_state(shape: tuple[int, int], layers: int | None = None) -> dict[str, Tensor]:
    F, d = shape
    return {
        "w_enc": torch.randn(d, F),
        "w_dec": torch.randn(F, d) if layers is None else torch.randn(F, layers, d),
        "b_enc": torch.randn(F),
        "b_dec": torch.randn(d),
        "threshold": torch.rand(F),
    }


def write_gemma_scope_2(directory: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir(parents=True)
    safetensors.torch.save_file(contiguous(state), directory / "params.safetensors")
    config = {
        "architecture": "jump_relu",
        "hf_hook_point_in": "model.layers.12.output",
        "model_name": "gemma-v3-1b-pt",
        "width": len(state["b_enc"]),
        "l0": 20,
        **changes,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def transcoder_state(shape: tuple[int, int]) -> dict[str, Tensor]:
    F, d = shape
    return {
        "W_enc": torch.randn(F, d),
        "W_dec": torch.randn(F, d),
        "b_enc": torch.randn(F),
        "b_dec": torch.randn(d),
    }


def write_transcoders(directory: Path, states: dict[int, dict[str, Tensor]]) -> Path:
    directory.mkdir(parents=True)
    for layer, state in states.items():
        safetensors.torch.save_file(contiguous(state), directory / f"layer_{layer}.safetensors")
    return write_transcoder_config(directory, len(states))


def write_transcoder_config(directory: Path, layers: int) -> Path:
    config = {
        "model_name": "google/gemma-2-2b",
        "model_kind": "transcoder_set",
        "feature_input_hook": "ln2.hook_normalized",
        "feature_output_hook": "hook_mlp_out",
        "scan": "some-scan",
        "transcoders": [f"hf://org/repo/layer_{i}.safetensors?revision=1" for i in range(layers)],
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


def write_cross_layer(
    directory: Path, shape: tuple[int, int], layers: int = 3
) -> dict[str, Tensor]:
    """A cross-layer transcoder; all its tensors by name."""
    F, d = shape
    directory.mkdir(parents=True)
    every: dict[str, Tensor] = {}
    for i in range(layers):
        encoder = {
            f"W_enc_{i}": torch.randn(F, d),
            f"b_enc_{i}": torch.randn(F),
            f"b_dec_{i}": torch.randn(d),
            f"threshold_{i}": torch.rand(F),
        }
        decoder = {f"W_dec_{i}": torch.randn(F, layers - i, d)}
        safetensors.torch.save_file(encoder, directory / f"W_enc_{i}.safetensors")
        safetensors.torch.save_file(decoder, directory / f"W_dec_{i}.safetensors")
        every |= encoder | decoder
    write_transcoder_config(directory, layers)
    return every


def _cross_layer(place: Path) -> Path:
    write_cross_layer(place, (50, 16))
    return place


SHAPE = (50, 16)
# One checkpoint of each format that has an encoder, and the part to be asked for.
MAKERS: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    "saelens": (
        lambda place: write_saelens(place, {**weights(SHAPE), "threshold": torch.rand(50)}),
        None,
    ),
    "gemma_scope": (
        lambda place: write_gemma_scope(place, {**weights(SHAPE), "threshold": torch.rand(50)}),
        None,
    ),
    "gemma_scope_2": (
        lambda place: write_gemma_scope_2(place, gemma_scope_2_state(SHAPE)),
        None,
    ),
    "dictionary_learning": (
        lambda place: write_dictionary_learning(place, batch_topk_state(SHAPE), SHAPE),
        None,
    ),
    "sparsify": (lambda place: write_sparsify(place, sparsify_state(SHAPE, skip=True)), None),
    "llama_scope": (lambda place: write_llama_scope(place, linear_state(SHAPE)), None),
    "openai": (lambda place: write_torch(place / "8.pt", openai_state(SHAPE)).parent, None),
    "goodfire": (
        lambda place: (
            write_torch(
                place / "Llama-3.1-8B-Instruct-SAE-l19.pth",
                linear_state(SHAPE, "encoder_linear", "decoder_linear"),
            ).parent
        ),
        None,
    ),
    "deepseek_r1": (
        lambda place: (
            write_torch(
                place / "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", linear_state(SHAPE)
            ).parent
        ),
        None,
    ),
    "qwen_scope": (
        lambda place: (
            write_torch(
                place / "SAE-Res-Qwen3-8B-Base-W64K-L0_4" / "layer7.sae.pt",
                {name: tensor.t() for name, tensor in weights(SHAPE).items()},
            ).parent
        ),
        "7",
    ),
    "circuit_tracer": (
        lambda place: write_transcoders(
            place,
            {0: transcoder_state(SHAPE) | {"activation_function.threshold": torch.rand(50)}},
        ),
        "0",
    ),
    "cross_layer": (_cross_layer, "1:2"),
}
