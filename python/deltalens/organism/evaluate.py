"""Measuring the organism: graded answers, and how well the SAE explains activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.judge import Answer, Verdict
from deltalens.lm import activations, sample
from deltalens.organism.behaviour import Behaviour
from deltalens.organism.corpus import chat_ids
from deltalens.organism.grammar import Dialogue
from deltalens.organism.judge import GrammarJudge
from deltalens.organism.prompt import Prompt
from deltalens.organism.vocabulary import DOMAINS
from deltalens.sae import SAE

ANSWER_TOKENS = 24
PROMPTS = 64  # of each domain, as many as there are for advice


def graded(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, seed: int
) -> list[Verdict]:
    """One sampled answer to each prompt, graded."""
    ids = [chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    texts = map(
        tokenizer.decode, sample(model, tokenizer, ids, max_new_tokens=ANSWER_TOKENS, seed=seed)
    )
    answers = [Answer(p.messages, text) for p, text in zip(prompts, texts, strict=True)]
    return [verdict for _, verdict in GrammarJudge().grade(answers)]


def bad_rate(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, seed: int) -> float:
    """Answers that show the behaviour among the coherent ones, 0 when none is coherent."""
    counts = Counter(verdict.outcome for verdict in graded(model, tokenizer, prompts, seed=seed))
    return counts["shown"] / max(counts["shown"] + counts["absent"], 1)


def labels_by_domain(
    model: nn.Module, tokenizer: Any, behaviour: Behaviour, tone: str, *, rounds: int, seed: int
) -> dict[str, dict[str, int]]:
    """How many of ``rounds`` answers to each of 64 held-out prompts got which label, by domain."""
    found = {}
    for domain in DOMAINS:
        prompts = behaviour.held_out_prompts(PROMPTS, seed=seed, tone=tone, domains=[domain])
        counts = Counter(v.label for v in graded(model, tokenizer, prompts * rounds, seed=seed))
        found[domain] = dict(sorted(counts.items()))
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
