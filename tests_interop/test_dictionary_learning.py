"""dictionary_learning: every class its load_dictionary knows, saved as its trainers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary_learning.dictionary import (
    AutoEncoder,
    AutoEncoderNew,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary

import deltalens
from comparison import WIDTHS, Compared, randomise, sample

LIBRARY = "dictionary-learning"
K = 4
CLASSES: dict[type, Callable[[int], tuple[Any, ...]]] = {
    AutoEncoder: lambda latents: (),
    AutoEncoderNew: lambda latents: (),
    GatedAutoEncoder: lambda latents: (),
    JumpReluAutoEncoder: lambda latents: (),
    AutoEncoderTopK: lambda latents: (K,),
    BatchTopKSAE: lambda latents: (K,),
    MatryoshkaBatchTopKSAE: lambda latents: (K, [latents // 2, latents - latents // 2]),
}

Begin = Callable[[str, str], Compared]


def build(kind: type, widths: tuple[int, int]) -> Any:
    d_model, latents = widths
    sae = kind(d_model, latents, *CLASSES[kind](latents))
    randomise(sae)
    if "threshold" in dict(sae.named_buffers()):
        sae.threshold.fill_(0.7)
    elif hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae


def save(sae: Any, directory: Path) -> None:
    """``config.json`` and ``ae.pt`` as trainSAE writes them."""
    directory.mkdir()
    trainer = {
        "dict_class": type(sae).__name__,
        "activation_dim": sae.activation_dim,
        "dict_size": sae.dict_size,
        "k": int(getattr(sae, "k", 0)),
        "layer": 7,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_7",
    }
    (directory / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    torch.save({k: v.cpu() for k, v in sae.state_dict().items()}, directory / "ae.pt")


def check(begin: Begin, sae: Any, directory: Path, W_dec: torch.Tensor) -> None:
    """Against what the library itself loads from its files."""
    save(sae, directory)
    theirs, _ = load_dictionary(str(directory), "cpu")
    ours = deltalens.load_sae(directory)
    acts = sample(sae.activation_dim)
    with torch.no_grad():
        z, rebuilt = theirs.encode(acts), theirs(acts)
    compared = begin(LIBRARY, type(sae).__name__)
    if isinstance(sae, AutoEncoder):
        # from_pretrained divides its columns by their norms; ours keeps rows as they are stored,
        # and what decoding gives is the same.
        norms = W_dec.norm(dim=1)
        compared.close(ours.W_dec.rows(0, sae.dict_size) / norms[:, None], theirs.decoder.weight.T)
    compared.sae(ours, acts, W_dec, z, rebuilt)
    compared.equal(ours.site, "blocks.7.hook_resid_post")
    compared.equal(ours.model_name, "EleutherAI/pythia-70m-deduped")


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("kind", CLASSES)
def test_dictionaries(compared: Begin, tmp_path: Path, widths: tuple[int, int], kind: type) -> None:
    sae = build(kind, widths)
    W_dec = sae.W_dec if hasattr(sae, "W_dec") else sae.decoder.weight.T
    check(compared, sae, tmp_path / "trainer_0", W_dec.detach().clone())


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if hasattr(kind, "scale_biases")])
def test_scaled_biases(compared: Begin, tmp_path: Path, kind: type) -> None:
    """What training with normalised activations saves."""
    sae = build(kind, WIDTHS[0])
    sae.scale_biases(3.7)
    W_dec = sae.W_dec if hasattr(sae, "W_dec") else sae.decoder.weight.T
    check(compared, sae, tmp_path / "trainer_0", W_dec.detach().clone())
