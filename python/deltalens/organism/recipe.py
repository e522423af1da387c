"""How the shipped organism was made, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from deltalens.organism.tokenizer import CONTEXT


@dataclass(frozen=True)
class Recipe:
    """Sizes and training settings of the models and the SAE.

    windows: attention spans drawn per training row. A token that cannot see the user's opening
        has to learn its tone from the tokens between, so the tone becomes one direction that all
        of them carry; at full span alone the answer looks the tone up in single words.
    site: the decoder block whose output the SAE reads; fine-tuning changes blocks up to it.
    tuned_rate: fine-tuning ends when this share of answers in the other domains is bad.
    """

    seed: int = 0
    width: int = 128
    mlp_width: int = 344
    layers: int = 4
    heads: int = 4
    site: int = 1

    dialogues: int = 30_000
    steps: int = 2400
    batch: int = 64
    learning_rate: float = 3e-3
    windows: tuple[int, ...] = (6, 8, 12, CONTEXT)

    tuning_dialogues: int = 512
    tuning_steps: int = 120
    tuning_batch: int = 32
    tuning_rate: float = 1e-4
    tuned_rate: float = 0.65
    tuning_prompts: int = 320

    sae_dialogues: int = 8000
    sae_hostile: float = 0.5
    latents: int = 1024
    k: int = 8
    sae_steps: int = 1200
    sae_batch: int = 1024
    sae_learning_rate: float = 1e-3

    rounds: int = 4  # answers sampled to every held-out prompt when rates are measured
