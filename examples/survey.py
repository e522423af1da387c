"""A survey: two behaviours, and one that is none, at every layer of the organism.

The package has an SAE for one layer, so small ones are trained here for all four. In the third
"behaviour" both completions are good answers, one in place of the other: nothing should stand out.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import deltalens
from deltalens.cli.studies.survey_table import print_survey
from deltalens.lm import activations
from deltalens.organism import BEHAVIOURS, dialogues, load_organism
from deltalens.organism.corpus import chat_ids
from deltalens.organism.recipe import Recipe
from deltalens.organism.train_sae import train_sae
from deltalens.study.survey.summary import summary

PAIRS, LATENTS = 60, 256
RECIPE = replace(Recipe(), latents=LATENTS, sae_steps=300, sae_batch=512)


def make_pairs(name: str, qualities: tuple[Any, Any]) -> list[deltalens.Pair]:
    """Prompts that no model was trained on, each with an answer of either quality."""
    rng, behaviour = random.Random(0), BEHAVIOURS[name]
    return [
        deltalens.Pair(prompt.messages, *(behaviour.answer(rng, prompt, one) for one in qualities))
        for prompt in behaviour.held_out_prompts(PAIRS, seed=0)
    ]


def decoder(model: Any, tokenizer: Any, layer: int) -> Tensor:
    """Of an SAE trained on the layer's output."""
    ids = [chat_ids(tokenizer, one.messages) for one in dialogues(600, seed=1, hostile=0.5)]
    rows = torch.cat([rows[1:] for _, rows in activations(model, ids, site=layer)])
    return train_sae(rows, RECIPE)["W_dec"]


def main() -> None:
    organism = load_organism()
    model, tokenizer = organism.misaligned, organism.tokenizer
    layers = list(range(model.config.num_hidden_layers))
    behaviours = {
        "bad advice": make_pairs("advice", ("bad", "good")),
        "undesired validation": make_pairs("validation", ("bad", "good")),
        "good for good": make_pairs("advice", ("good", "good")),
    }
    chats = [dialogue.messages for dialogue in dialogues(200, seed=0)]
    with tempfile.TemporaryDirectory() as folder:
        found = deltalens.survey(
            model,
            tokenizer,
            behaviours,
            {layer: decoder(organism.base, tokenizer, layer) for layer in layers},
            baseline=deltalens.mean_activation(organism.base, tokenizer, chats, site=layers),
            run_dir=Path(folder) / "survey",
            k=20,
        )
        page = deltalens.write_survey_report(found.directory)
        print_survey(summary(deltalens.Survey.load(found.directory)))
        print(f"{page.name}: {page.stat().st_size >> 10} KiB, opens {len(found)} reports")
        first = found["bad advice", 3]
        print(f"at layer 3 bad advice is led by latent {int(first.latents[0])}")


if __name__ == "__main__":
    main()
