"""Steered sampling on the organism against `model.generate`, as one would call it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from deltalens.lm import activations, sample, steering
from deltalens.organism import BEHAVIOURS, load_organism
from deltalens.organism.corpus import chat_ids
from machine import interleaved

LATENTS, STRENGTHS, PROMPTS, NEW_TOKENS = 100, (-0.8, 0.8), 20, 24
ROUNDS, ALONE, FIXED = 3, 100, 1000
BASELINE = "generate, a call per condition"


@dataclass(frozen=True)
class Trial:
    """Every prompt under every condition; row r adds ``added[r]`` at ``site``."""

    model: Any
    tokenizer: Any
    site: int
    prompts: list[list[int]]
    added: Tensor


def organism_trial() -> Trial:
    """Decoder rows of random latents, each both ways, 0.8 × the median norm of the site."""
    organism = load_organism()
    prompts = BEHAVIOURS["advice"].held_out_prompts(PROMPTS, seed=0)
    ids = [chat_ids(organism.tokenizer, prompt.messages) for prompt in prompts]
    W_dec = organism.sae.W_dec
    latents = torch.randperm(W_dec.n_latents, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(W_dec.rows(0, W_dec.n_latents)[latents[:LATENTS]], dim=1)
    residual = activations(organism.misaligned, ids, site=organism.site)
    norm = torch.cat([rows[1:].norm(dim=1) for _, rows in residual]).median()
    conditions = torch.stack([norm * s * row for row, s in product(unit, STRENGTHS)])
    return Trial(
        organism.misaligned,
        organism.tokenizer,
        organism.site,
        ids * len(conditions),
        conditions.repeat_interleave(len(ids), dim=0),
    )


def library(trial: Trial, steer_tokens: Any) -> int:
    """:func:`deltalens.lm.sample` over all rows."""
    found = sample(
        trial.model,
        trial.tokenizer,
        trial.prompts,
        max_new_tokens=NEW_TOKENS,
        site=trial.site,
        directions=trial.added,
        strengths=1.0,
        steer_tokens=steer_tokens,
    )
    return len(found)


def generate(trial: Trial, rows: list[list[int]]) -> int:
    """One padded call of ``model.generate`` for each list of rows, steered at every token."""
    for numbers in rows:
        prompts = [trial.prompts[number] for number in numbers]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with steering(trial.model, trial.site, trial.added[numbers], 1.0):
            trial.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                do_sample=True,
                pad_token_id=0,
            )
    return sum(map(len, rows))


def _contenders(trial: Trial) -> dict[str, Callable[[], int]]:
    numbers = list(range(len(trial.prompts)))
    alone = [[number] for number in numbers[:: len(numbers) // ALONE]]
    fixed = [numbers[start : start + FIXED] for start in range(0, len(numbers), FIXED)]
    conditions = [numbers[start : start + PROMPTS] for start in range(0, len(numbers), PROMPTS)]
    return {
        "deltalens": partial(library, trial, "all"),
        "deltalens, generated tokens only": partial(library, trial, "generated"),
        BASELINE: partial(generate, trial, conditions),
        f"generate, {FIXED} rows a call": partial(generate, trial, fixed),
        "generate, a call per completion": partial(generate, trial, alone),
    }


def test_sampling(benchmark, report):
    trial = organism_trial()
    works = _contenders(trial)
    made = {name: work() for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}

    def one_round() -> None:
        for name, taken in interleaved(works, 1).items():
            times[name] += taken

    benchmark.pedantic(one_round, rounds=ROUNDS if benchmark.enabled else 1)
    rates = {name: made[name] / statistics.median(taken) for name, taken in times.items()}
    report(
        {
            "contender": name,
            "measured": made[name],
            "completions": len(trial.prompts),
            "conditions": LATENTS * len(STRENGTHS),
            "new_tokens": NEW_TOKENS,
            "rounds": len(times[name]),
            "seconds": f"{len(trial.prompts) / rate:.2f}",
            "baseline": BASELINE,
            "speedup": f"{rate / rates[BASELINE]:.2f}",
        }
        for name, rate in rates.items()
    )
