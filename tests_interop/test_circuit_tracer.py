"""circuit-tracer: transcoders of one layer and across layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
from torch import nn

import deltalens
from comparison import WIDTHS, Compared, randomise, sample
from deltalens.sae.encoder import Encoder

LIBRARY = "circuit-tracer"
LAYERS = 3
CPU = torch.device("cpu")
CONFIG = {
    "model_name": "google/gemma-2-2b",
    "model_kind": "transcoder_set",
    "feature_input_hook": "ln2.hook_normalized",
    "feature_output_hook": "hook_mlp_out",
    "scan": "gemma-2-2b",
}

Begin = Callable[[str, str], Compared]


def activation(name: str, latents: int) -> Any:
    return JumpReLU(torch.rand(latents)) if name == "jump_relu" else nn.functional.relu


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["relu", "jump_relu"])
def test_single_layers(
    compared: Begin, tmp_path: Path, widths: tuple[int, int], skip: bool, name: str
) -> None:
    d_model, latents = widths
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    transcoders = []
    for layer in range(LAYERS):
        function = activation(name, latents)
        made = SingleLayerTranscoder(
            d_model, latents, function, layer, skip, device=CPU, dtype=torch.float32
        )
        randomise(made)
        if name == "jump_relu":
            function.threshold.data.abs_()
        made.to_safetensors(str(tmp_path / f"layer_{layer}.safetensors"))
        transcoders.append(made)
    acts = sample(d_model)
    for layer, made in enumerate(transcoders):
        ours = deltalens.load_sae(tmp_path, part=layer)
        begin = compared(LIBRARY, "transcoders of one layer")
        with torch.no_grad():
            begin.sae(ours, acts, made.W_dec, made.encode(acts), made(acts))
        begin.equal(ours.site, f"blocks.{layer}.hook_mlp_out")
        begin.equal(ours.model_name, "google/gemma-2-2b")


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("name", ["relu", "jump_relu"])
def test_across_layers(compared: Begin, tmp_path: Path, widths: tuple[int, int], name: str) -> None:
    """The sum over source layers of our reconstructions, and the bias, is the library's output."""
    d_model, latents = widths
    made = CrossLayerTranscoder(
        LAYERS,
        latents,
        d_model,
        activation_function=name,
        lazy_decoder=False,
        device=CPU,
        dtype=torch.float32,
    )
    randomise(made)
    if name == "jump_relu":
        made.activation_function.threshold.data.copy_(torch.rand(LAYERS, 1, latents))
    made.to_safetensors(str(tmp_path))
    acts = torch.stack([sample(d_model) for _ in range(LAYERS)])
    with torch.no_grad():
        z = made.encode(acts)
        rebuilt = made.decode(z)
    begin = compared(LIBRARY, "cross-layer transcoders")
    for target in range(LAYERS):
        total = made.b_dec[target].detach()
        for source in range(target + 1):
            ours = deltalens.load_sae(tmp_path, part=f"{source}:{target}")
            encoder = Encoder(ours.encoding, ours.W_dec)
            begin.equal(ours.W_dec.rows(0, latents), made.W_dec[source][:, target - source])
            begin.latents(encoder.encode(acts[source]), z[source])
            total = total + encoder.reconstruct(acts[source])
        begin.close(total, rebuilt[target])
