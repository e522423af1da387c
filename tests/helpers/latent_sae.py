"""An SAE of several kinds at the tiny study's site, its encoder in fp64, and a baseline."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

import deltalens
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.study import Baseline
from helpers.tiny_study import D_MODEL, SITE

F, TOP = 150, 9
KINDS = ("topk", "jumprelu", "normalised")


def tensors(seed: int = 1) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D_MODEL, F), "b_enc": (F,), "W_dec": (F, D_MODEL), "b_dec": (D_MODEL,)}
    made = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    return {**made, "threshold": torch.rand(F, generator=draw) * 3}


def make_sae(directory, kind):
    directory.mkdir()
    config = {
        "architecture": "jumprelu" if kind == "jumprelu" else "topk",
        "k": TOP,
        "d_in": D_MODEL,
        "d_sae": F,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "layer_norm" if kind == "normalised" else "none",
        "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post", "sae_lens_version": "6.0.0"},
    }
    given = tensors()
    if kind != "jumprelu":
        del given["threshold"]
    (directory / "cfg.json").write_text(json.dumps(config))
    save_file(given, directory / "sae_weights.safetensors")
    return deltalens.load_sae(directory)


def encoded(kind, acts):
    """z [tokens, F] and the factor [tokens, 1] that decoding multiplies with, in fp64."""
    given = {name: tensor.double() for name, tensor in tensors().items()}
    factor = torch.ones(len(acts), 1, dtype=torch.float64)
    if kind == "normalised":
        factor = acts.std(dim=1, keepdim=True)
        acts = (acts - acts.mean(dim=1, keepdim=True)) / (factor + 1e-5)
    u = (acts - given["b_dec"]) @ given["W_enc"] + given["b_enc"]
    if kind == "jumprelu":
        return u.relu() * (u > given["threshold"]), factor
    kept = u.topk(TOP, dim=1)
    return torch.zeros_like(u).scatter(1, kept.indices, kept.values.relu()), factor


def baseline_of(sae):
    """A baseline that holds means of this SAE's latents."""
    draw = torch.Generator().manual_seed(8)
    return Baseline(
        torch.randn(D_MODEL, generator=draw),
        10,
        f"model.layers.{SITE}",
        {"source": "test"},
        torch.rand(F, generator=draw, dtype=torch.float64),
        decoder_fingerprint(sae, sae.W_dec),
    )
