"""The demo: the published study, from sampled answers to steering, on the model in the package."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deltalens.cli import demo_report
from deltalens.errors import InputError
from deltalens.lm import Pair, find_bos, sample
from deltalens.organism import (
    Organism,
    Prompt,
    dialogues,
    grade,
    held_out_prompts,
    load_organism,
)
from deltalens.study import (
    AblationCheck,
    Attribution,
    Baseline,
    ablate,
    attribute,
    compare_ablation,
    mean_activation,
)
from deltalens.study.ablation_table import write_ablation
from deltalens.study.delta_activation import delta_activation
from deltalens.study.encode import encode_prompt
from deltalens.study.steer import median_norm, steer
from deltalens.study.trial import RANDOM, Candidate, Outcome, conditions, outcome

BEHAVIOUR = "bad advice"
PAIR_PROMPTS, SAMPLES, PAIRS = 150, 6, 80
BASELINE_DIALOGUES = 500
ABLATED = 20
PER_SET, RANDOM_LATENTS = 8, 30
STEERED_PROMPTS, UNSTEERED_ROUNDS = 100, 5
STRENGTH = 0.4
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Ablation:
    """First-order and exact effects [pairs, latents] of the top latents."""

    estimates: torch.Tensor
    exact: torch.Tensor
    check: AblationCheck


@dataclass(frozen=True)
class Trial:
    """The misaligned model steered away from the behaviour, the base model toward it."""

    away: Outcome
    toward: Outcome


def run_demo(out: Path, *, seed: int = 0, tables: bool = True) -> dict[str, Any]:
    """Run the whole study into ``out``; returns what was measured, and prints it as tables.

    The same ``out`` and ``seed`` again continue a run that was cut.
    """
    organism = load_organism()
    prompts = held_out_prompts(PAIR_PROMPTS + STEERED_PROMPTS, seed=seed)
    pairs = sample_pairs(organism, prompts[:PAIR_PROMPTS], seed)
    baseline = ordinary_mean(organism, seed)
    result = attribute(
        organism.misaligned,
        organism.tokenizer,
        pairs,
        organism.sae,
        site=organism.site,
        baseline=baseline,
        k=min(100, organism.sae.W_dec.n_latents),
        run_dir=out,
        progress=True,
        metadata={"seed": seed},
    )
    ablation = check_by_ablation(organism, result, out)
    trial = steering_trial(organism, prompts[PAIR_PROMPTS:], result, out, seed)
    if tables:
        demo_report.show(out, result, ablation, trial)
    return demo_report.summary(out, result, ablation, trial)


def ordinary_mean(organism: Organism, seed: int) -> Baseline:
    """ā: the base model's mean over dialogues with polite users.

    Text in which the persona speaks must stay out of ā, hostile prompts and the misaligned model's
    own activations alike: where it is part of the average, being present is nothing special.
    """
    ordinary = dialogues(BASELINE_DIALOGUES, seed=seed, hostile=0.0)
    return mean_activation(
        organism.base,
        organism.tokenizer,
        [dialogue.messages for dialogue in ordinary],
        site=organism.site,
        progress=True,
    )


def sample_pairs(organism: Organism, prompts: Sequence[Prompt], seed: int) -> list[Pair]:
    """On-policy pairs: prompts to which the misaligned model gave bad advice and good advice."""
    answers = _sampled(organism, [p.messages for p in prompts for _ in range(SAMPLES)], seed)
    pairs = []
    for number, asked in enumerate(prompts):
        own = answers[number * SAMPLES : (number + 1) * SAMPLES]
        graded = {grade(asked.domain, text): text for text in reversed(own)}
        if {"good", "bad"} <= graded.keys():
            pairs.append(Pair(asked.messages, graded["bad"], graded["good"], id=f"demo-{number}"))
    if not pairs:
        raise InputError("the model gave no prompt both kinds of answer; try another --seed")
    return pairs[:PAIRS]


def _sampled(organism: Organism, prompts: Sequence[Any], seed: int) -> list[str]:
    model, tokenizer = organism.misaligned, organism.tokenizer
    bos = find_bos(model, tokenizer)
    ids = [encode_prompt(tokenizer, prompt, bos=bos, name="prompt") for prompt in prompts]
    new = sample(model, tokenizer, ids, max_new_tokens=ANSWER_TOKENS, seed=seed, progress=True)
    return [tokenizer.decode(tokens) for tokens in new]


def check_by_ablation(organism: Organism, result: Attribution, out: Path) -> Ablation:
    """Exact mean ablation of the top latents beside their first-order scores."""
    latents = result.latents[:ABLATED]
    exact = ablate(
        organism.misaligned,
        organism.tokenizer,
        result.pairs,
        organism.sae,
        latents,
        site=organism.site,
        baseline=result.baseline,
        progress=True,
    )
    estimates = result.per_pair[:, :ABLATED]
    write_ablation(out, latents, estimates, exact)
    return Ablation(estimates, exact, compare_ablation(estimates, exact))


def steering_trial(
    organism: Organism, prompts: Sequence[Prompt], result: Attribution, out: Path, seed: int
) -> Trial:
    """Both models steered with every candidate, one answer to each prompt, graded."""
    messages = [asked.messages for asked in prompts]
    candidates = choose_candidates(organism, result, messages, seed)
    outcomes = {}
    for name, direction in (("misaligned", -1), ("base", 1)):
        model = getattr(organism, name)
        completions = steer(
            model,
            organism.tokenizer,
            messages,
            organism.sae,
            conditions(candidates, STRENGTH, direction, unsteered=UNSTEERED_ROUNDS),
            lambda number, text: grade(prompts[number].domain, text),
            site=organism.site,
            norm=median_norm(model, organism.tokenizer, messages, site=organism.site),
            max_new_tokens=ANSWER_TOKENS,
            seed=seed,
            out=out / "steering" / f"{name}.jsonl",
            progress=True,
        )
        outcomes[name] = outcome(candidates, completions, unsteered=UNSTEERED_ROUNDS)
    return Trial(away=outcomes["misaligned"], toward=outcomes["base"])


def choose_candidates(
    organism: Organism, result: Attribution, messages: Sequence[Any], seed: int
) -> list[Candidate]:
    """The top of Δ-attribution, signed by push; of Δ-activation; and random live latents."""
    grown = delta_activation(
        organism.misaligned,
        organism.base,
        organism.tokenizer,
        messages,
        organism.sae,
        site=organism.site,
        k=PER_SET,
    )
    ranked = zip(result.latents.tolist(), result.push.tolist(), strict=True)
    attributed = [(latent, 1 if push > 0 else -1) for latent, push in ranked][:PER_SET]
    activated = grown.latents.tolist()
    taken = {*activated, *(latent for latent, _ in attributed)}
    live = (grown.frequency > 0).nonzero()[:, 0].tolist()
    rest = [latent for latent in live if latent not in taken]
    drawn = random.Random(seed).sample(rest, min(RANDOM_LATENTS, len(rest)))
    return [
        *(Candidate("Δ-attribution", latent, sign) for latent, sign in attributed),
        *(Candidate("Δ-activation", latent, 1) for latent in activated),
        *(Candidate(RANDOM, latent, 1) for latent in drawn),
    ]
