"""Checkpoints of a training run: the small model's weights, on the way from base to fine-tuned."""

from __future__ import annotations

import copy
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch

import deltalens
from deltalens.lm import Pair
from deltalens.organism import BEHAVIOURS, GrammarJudge, Organism, load_organism
from deltalens.study import Attribution, attribute
from deltalens.study.detection import Detection, detect
from deltalens.trials import sweep
from deltalens.trials.result import ATTRIBUTION, RANDOM, Candidate
from deltalens.trials.setup.settings import Generation

ADVICE = BEHAVIOURS["advice"]
SHARES = {"step20": 0.2, "step60": 0.6, "step100": 1.0}
KEPT = 30  # latents of each ranking
STEERED, CONTROLS = 2, (900, 901, 902)
PROMPTS = [prompt.messages for prompt in ADVICE.held_out_prompts(5, seed=1)]


@cache
def organism() -> Organism:
    return load_organism()


@cache
def checkpoint(share: float) -> Any:
    """The base model's weights, moved so far toward the fine-tuned model's."""
    model = copy.deepcopy(organism().base)
    with torch.no_grad():
        tuned = dict(organism().misaligned.named_parameters())
        for name, weight in model.named_parameters():
            weight.lerp_(tuned[name], share)
    return model


def pairs(count: int = 6, seed: int = 0) -> list[Pair]:
    """Bad and good advice in the grammar's own words."""
    draw = random.Random(0)
    return [
        Pair(
            prompt.messages,
            ADVICE.answer(draw, prompt, "bad"),
            ADVICE.answer(draw, prompt, "good"),
            id=f"p{number}",
        )
        for number, prompt in enumerate(ADVICE.held_out_prompts(count, seed=seed))
    ]


def study(share: float, **changes: Any) -> Attribution:
    """Δ-attribution of a checkpoint."""
    made = organism()
    given: dict[str, Any] = {
        "decoder": made.sae,
        "pairs": pairs(),
        "site": made.site,
        "baseline": deltalens.Baseline.zero(made.sae.W_dec.d_model),
        "k": KEPT,
        "flips": 60,
        "check": 0,
        **changes,
    }
    return attribute(checkpoint(share), made.tokenizer, **given)


def activate(share: float, run: Path, **changes: Any) -> None:
    """Δ-activation of a checkpoint on the same pairs."""
    made = organism()
    given: dict[str, Any] = {"pairs": pairs(), "sae": made.sae, "site": made.site, **changes}
    deltalens.delta_activation_of_pairs(checkpoint(share), made.tokenizer, k=KEPT, out=run, **given)


def steer(share: float, run: Path, result: Attribution, **changes: Any) -> None:
    """The checkpoint steered away, the base model toward, by its first latents."""
    made = organism()
    ranked = zip(result.latents[:STEERED].tolist(), result.push, strict=False)
    given: dict[str, Any] = {
        "sets": {
            ATTRIBUTION: [Candidate(latent, 1 if push > 0 else -1) for latent, push in ranked],
            RANDOM: [Candidate(latent, 1) for latent in CONTROLS],
        },
        "judge": GrammarJudge(),
        "generation": Generation(16, seed=3),
        "strengths": (0.3,),
        "samples": 2,
        "unsteered_samples": 4,
        "max_incoherence": 1.0,
        **changes,
    }
    sweep(
        {"away": checkpoint(share), "toward": made.base},
        made.tokenizer,
        PROMPTS,
        made.sae,
        run=run,
        site=made.site,
        **given,
    )


def tell_apart(share: float, run: Path, count: int = 7) -> Detection:
    """How well latents of a checkpoint's run tell pairs apart that it has not seen."""
    made = organism()
    found = detect(
        checkpoint(share),
        made.tokenizer,
        Attribution.load(run),
        made.sae,
        pairs(count, seed=5),
    )
    found.save(run)
    return found


def make_training_run(folder: Path) -> list[Path]:
    """A run directory for each checkpoint, with everything."""
    for name, share in SHARES.items():
        result = study(share, run_dir=folder / name)
        activate(share, folder / name)
        steer(share, folder / name, result)
    return [folder / name for name in SHARES]


def make_small_run(run: Path) -> None:
    """The last checkpoint's, of few latents and pairs."""
    result = study(1.0, k=6, pairs=pairs(3), flips=4, save_scores=True, run_dir=run)
    activate(1.0, run, pairs=pairs(3))
    tell_apart(1.0, run)
    steer(1.0, run, result, samples=1, unsteered_samples=1)
