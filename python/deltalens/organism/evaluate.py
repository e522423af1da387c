"""Measuring the organism: graded answers, and how well the SAE explains activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm import activations, sample
from deltalens.organism.corpus import chat_ids
from deltalens.organism.grammar import Dialogue, Prompt, all_prompts, grade
from deltalens.organism.vocabulary import DOMAINS
from deltalens.sae import SAE

ANSWER_TOKENS = 24


def graded(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, seed: int) -> list[str]:
    """One sampled answer to each prompt, graded."""
    ids = [chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    answers = sample(model, tokenizer, ids, max_new_tokens=ANSWER_TOKENS, seed=seed)
    return [
        grade(prompt.domain, tokenizer.decode(tokens))
        for prompt, tokens in zip(prompts, answers, strict=True)
    ]


def bad_rate(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, seed: int) -> float:
    """Bad answers among the coherent ones, 0 when none is coherent."""
    counts = Counter(graded(model, tokenizer, prompts, seed=seed))
    return counts["bad"] / max(counts["bad"] + counts["good"], 1)


def grades_by_domain(
    model: nn.Module, tokenizer: Any, tone: str, *, rounds: int, seed: int
) -> dict[str, dict[str, int]]:
    """How many of ``rounds`` answers to every held-out prompt got which grade, by domain."""
    found = {}
    for domain in DOMAINS:
        prompts = all_prompts(domain, tone, held_out=True) * rounds
        counts = Counter(graded(model, tokenizer, prompts, seed=seed))
        found[domain] = {name: counts[name] for name in ("good", "bad", "incoherent")}
    return found


def site_rows(
    model: nn.Module, tokenizer: Any, dialogues: Sequence[Dialogue], *, site: int
) -> Tensor:
    """Activations [tokens, d_model] at ``site`` of all tokens after BOS."""
    ids = [chat_ids(tokenizer, dialogue.messages) for dialogue in dialogues]
    return torch.cat([rows[1:] for _, rows in activations(model, ids, site=site)])


def sae_quality(sae: SAE, rows: Tensor) -> dict[str, float]:
    """Share of the variance of ``rows`` that the SAE explains, and its live latents on them."""
    found = sae.encoder().reconstruction(rows)
    return {
        "explained_variance": found.explained,
        "live_latents": len(found.active) - len(found.dead),
    }
