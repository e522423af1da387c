"""From a run to a file with directions, and from that file to a steered model.

``format="gguf"`` writes the same direction for llama.cpp and repeng (with the package gguf).
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

import deltalens
from deltalens.organism import dialogues, held_out_prompts, load_organism
from deltalens.organism.evaluate import bad_rate
from deltalens.organism.grammar import answer
from deltalens.trials.residual_norm import median_norm


def first_direction(path: Path) -> tuple[int, int, Tensor]:
    """Layer, latent and unit direction toward the behaviour of an exported run's first latent."""
    with safe_open(path, "pt") as file:
        toward = 1 if file.get_tensor("push")[0] > 0 else -1
        layer, latents = int(file.metadata()["layer"]), file.get_tensor("latents")
        return layer, int(latents[0]), toward * file.get_tensor("directions")[0]


def main() -> None:
    organism = load_organism()
    rng = random.Random(0)
    asked = held_out_prompts(120, seed=0)
    pairs = [
        deltalens.Pair(
            prompt.messages, answer(rng, prompt.domain, "bad"), answer(rng, prompt.domain, "good")
        )
        for prompt in asked[:60]
    ]
    polite = [dialogue.messages for dialogue in dialogues(200, seed=0, hostile=0.0)]
    baseline = deltalens.mean_activation(
        organism.base, organism.tokenizer, polite, site=organism.site
    )
    result = deltalens.attribute(
        organism.misaligned, organism.tokenizer, pairs, organism.sae,
        site=organism.site, baseline=baseline, k=20,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.safetensors"
        deltalens.export(result, path, "safetensors", decoder=organism.sae)
        deltalens.export(result, path.with_suffix(".csv"), "csv")
        layer, latent, direction = first_direction(path)

    for name, sign in (("misaligned", -1), ("base", 1)):
        model = getattr(organism, name)
        messages = [prompt.messages for prompt in asked[:60]]
        strength = 0.4 * median_norm(model, organism.tokenizer, messages, site=layer)
        plain = bad_rate(model, organism.tokenizer, asked[60:], seed=0)
        with deltalens.steering(model, layer, direction, sign * strength):
            steered = bad_rate(model, organism.tokenizer, asked[60:], seed=0)
        print(f"{name}: {plain:.0%} bad answers, {steered:.0%} with {sign:+d} × latent {latent}")


if __name__ == "__main__":
    main()
