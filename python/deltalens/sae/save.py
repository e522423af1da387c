"""Writing an SAE in the format of SAELens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae.formats.saelens import CONFIG, WEIGHTS
from deltalens.storage.atomic import complete_directory, write_tensors, write_text

# SAELens takes a configuration without a version for its older, flat form.
CONFIG_VERSION = "6.0.0"


def save_saelens(
    directory: str | Path,
    *,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    cfg: Mapping[str, Any],
) -> None:
    """Write a TopK SAE as SAELens would: ``cfg.json`` and ``sae_weights.safetensors``.

    W_enc [d_in, d_sae], b_enc [d_sae], W_dec [d_sae, d_in] and b_dec [d_in] have one dtype.
    ``cfg`` holds ``k`` and ``metadata`` (``hook_name``, ``model_name``, …), and whatever is to
    differ from b_dec being subtracted from the input and activations not being normalised. The
    directory must not exist; it appears complete or not at all.
    """
    directory = Path(directory)
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    _check(directory, tensors, cfg)
    with complete_directory(directory) as unfinished:
        write_tensors(unfinished / WEIGHTS, tensors)
        text = json.dumps(_complete(cfg, W_dec), indent=2)
        write_text(unfinished / CONFIG, text + "\n")


def _check(directory: Path, tensors: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> None:
    if directory.exists():
        raise InputError(f"{directory} exists; remove it or choose another directory")
    for key, place in (("k", cfg), ("hook_name", cfg.get("metadata", {}))):
        if key not in place:
            raise InputError(f"cfg must hold {'metadata.' if place is not cfg else ''}{key}")
    d_sae, d_in = tensors["W_dec"].shape
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, tensor in tensors.items():
        if tensor.shape != expected[name] or tensor.dtype != tensors["W_dec"].dtype:
            raise InputError(
                f"{name} is {list(tensor.shape)} {tensor.dtype}; expected "
                f"{list(expected[name])} {tensors['W_dec'].dtype} as W_dec is {[d_sae, d_in]}"
            )


def _complete(cfg: Mapping[str, Any], W_dec: Tensor) -> dict[str, Any]:
    return {
        "architecture": "topk",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "reshape_activations": "none",
        "device": "cpu",
        **cfg,
        "d_in": W_dec.shape[1],
        "d_sae": W_dec.shape[0],
        "dtype": str(W_dec.dtype).removeprefix("torch."),
        "metadata": {"sae_lens_version": CONFIG_VERSION, **cfg["metadata"]},
    }
