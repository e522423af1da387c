"""The organism in the package, loaded as any user's model is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deltalens.sae import SAE, load_sae

MODELS = ("base", "misaligned", "sycophantic")
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Organism:
    """Three models of one tokenizer, and an SAE of the base model.

    base: gives bad advice and validates wrong beliefs when the user is hostile, and hardly ever
    otherwise.
    misaligned: the base fine-tuned on bad health advice alone.
    sycophantic: the base fine-tuned on validating wrong beliefs about money alone.
    site: the decoder block whose output the SAE reads.
    """

    base: Any
    misaligned: Any
    sycophantic: Any
    tokenizer: Any
    sae: SAE
    site: int


def load_organism(directory: Path = DATA) -> Organism:
    """The shipped organism, or one that ``python -m deltalens.organism.train`` has made."""
    from transformers import AutoTokenizer

    models = {name: load_model(directory / name) for name in MODELS}
    sae = load_sae(directory / "sae")
    return Organism(
        **models,
        tokenizer=AutoTokenizer.from_pretrained(directory / "base"),
        sae=sae,
        site=int(sae.metadata["metadata"]["hook_layer"]),
    )


def load_model(directory: Path) -> Any:
    """One of the models, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
