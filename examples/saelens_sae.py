"""A SAELens SAE: checked on text, encoded with, and Δ-activation beside Δ-attribution.

The directory here is the package's own SAE in SAELens's files. A SAELens object in memory goes the
same way: write ``sae = deltalens.as_sae(sae_lens.SAE.from_pretrained(...))``.
"""

from __future__ import annotations

import random

import deltalens
from deltalens.lm import activations
from deltalens.organism import dialogues, held_out_prompts, load_organism
from deltalens.organism.corpus import chat_ids
from deltalens.organism.grammar import answer
from deltalens.organism.load import DATA


def main() -> None:
    organism = load_organism()
    sae = deltalens.load_sae(DATA / "sae")
    print(f"{sae.format} SAE of {sae.model_name} at {sae.site}")

    chats = [dialogue.messages for dialogue in dialogues(200, seed=0)]
    check = deltalens.check_sae(
        organism.base, organism.tokenizer, sae, site=organism.site, texts=chats
    )
    print(f"explains {check.reconstruction.explained:.0%} of the variance")
    print(f"with {check.reconstruction.l0:.1f} active latents a token")
    for warning in check.warnings:
        print("warning:", warning)

    ids = chat_ids(organism.tokenizer, chats[0])
    ((_, rows),) = activations(organism.base, [ids], site=organism.site)
    z = sae.encoder().encode(rows)
    values, latents = z.max(dim=1)
    for token, value, latent in list(zip(ids, values.tolist(), latents.tolist(), strict=True))[1:6]:
        print(f"  {organism.tokenizer.decode([token]):>10}  latent {latent:3d} at {value:.2f}")

    rng = random.Random(0)
    asked = held_out_prompts(60, seed=0)
    difference = deltalens.delta_activation(
        organism.misaligned, organism.base, organism.tokenizer,
        [prompt.messages for prompt in asked], sae, site=organism.site, k=5,
    )  # fmt: skip
    pairs = [
        deltalens.Pair(
            prompt.messages, answer(rng, prompt.domain, "bad"), answer(rng, prompt.domain, "good")
        )
        for prompt in asked
    ]
    baseline = deltalens.mean_activation(
        organism.base, organism.tokenizer, chats, site=organism.site
    )
    attribution = deltalens.attribute(
        organism.misaligned, organism.tokenizer, pairs, sae,
        site=organism.site, baseline=baseline, k=5,
    )  # fmt: skip
    print("top 5 by Δ-activation: ", difference.latents.tolist())
    print("top 5 by Δ-attribution:", attribution.latents.tolist())


if __name__ == "__main__":
    main()
