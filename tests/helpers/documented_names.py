"""The names that Python on a page may use without making them: see CONTRIBUTING.md."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import deltalens
from helpers.documented_files import SITE, WIDTH

TOKENS, PROMPTS = 12, 3


def names() -> dict[str, Any]:
    """Made of the files in the working directory, the same for every page."""
    model, base, tuned = map(AutoModelForCausalLM.from_pretrained, ("NAME", "BASE", "TUNED"))
    sae, draw = deltalens.load_sae("path/to/sae"), torch.Generator().manual_seed(0)
    pairs = deltalens.read_pairs("pairs.jsonl")
    mean = deltalens.Baseline.load("baseline.safetensors")
    return {
        "deltalens": deltalens,
        "NAME": "NAME",
        "model": model,
        "base": base,
        "tuned": tuned,
        "tokenizer": AutoTokenizer.from_pretrained("NAME"),
        "sae": sae,
        "pairs": pairs,
        "texts": deltalens.read_texts("web.txt"),
        "prompts": [pair.prompt for pair in pairs],
        "baseline": mean,
        "others": deltalens.read_pairs("advice.jsonl"),
        "sae_6": deltalens.load_sae("saes/block-6"),
        "sae_12": deltalens.load_sae("saes/block-12"),
        "saes": [deltalens.load_sae(f"saes/block-{block}") for block in (6, 12, 12)],
        "means": {
            block: deltalens.Baseline.load(f"baselines/site-{block}.safetensors")
            for block in (6, 12)
        },
        "run": "runs/first",
        "W_dec": sae.W_dec.rows(0, sae.W_dec.n_latents),
        "a_mean": mean.mean,
        "acts": torch.randn(TOKENS, WIDTH, generator=draw),
        "grads": torch.randn(TOKENS, WIDTH, generator=draw),
        "cache": {("resid_post", SITE): torch.randn(PROMPTS, 4, WIDTH, generator=draw)},
        "gradients": torch.randn(PROMPTS, 4, WIDTH, generator=draw),
        "mask": torch.ones(PROMPTS, 4, dtype=torch.bool),
        "offsets": torch.arange(0, TOKENS + 1, TOKENS // PROMPTS),
    }
