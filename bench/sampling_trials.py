"""Steered sampling by the library and by `model.generate`, as one would call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm import activations, sample, steering
from deltalens.lm.sampling.api import GENERATION_TOKENS
from deltalens.lm.steering import SteerTokens
from deltalens.organism import BEHAVIOURS, load_organism
from deltalens.organism.corpus import chat_ids

LATENTS, STRENGTHS, PROMPTS, NEW_TOKENS = 100, (-0.8, 0.8), 20, 24


@dataclass(frozen=True)
class Trial:
    """Every prompt under every condition; row r adds ``added[r]`` at ``site``."""

    model: Any
    tokenizer: Any
    site: int
    prompts: list[list[int]]
    added: Tensor
    new_tokens: int = NEW_TOKENS


def organism_trial() -> Trial:
    """Decoder rows of random latents, each both ways, 0.8 × the median norm of the site."""
    organism = load_organism()
    prompts = BEHAVIOURS["advice"].held_out_prompts(PROMPTS, seed=0)
    ids = [chat_ids(organism.tokenizer, prompt.messages) for prompt in prompts]
    W_dec = organism.sae.W_dec
    latents = torch.randperm(W_dec.n_latents, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(W_dec.rows(0, W_dec.n_latents)[latents[:LATENTS]], dim=1)
    norm = median_norm(organism.misaligned, ids, organism.site)
    conditions = torch.stack([norm * s * row for row, s in product(unit, STRENGTHS)])
    return Trial(
        organism.misaligned,
        organism.tokenizer,
        organism.site,
        ids * len(conditions),
        conditions.repeat_interleave(len(ids), dim=0),
    )


def median_norm(model: Any, prompts: list[list[int]], site: int) -> Tensor:
    """Of the residual stream at the site, first tokens apart."""
    residual = activations(model, prompts, site=site)
    return torch.cat([rows[1:].float().norm(dim=1) for _, rows in residual]).median()


def library(trial: Trial, steer_tokens: SteerTokens, batch_tokens: int = GENERATION_TOKENS) -> int:
    """:func:`deltalens.lm.sample` over all rows."""
    found = sample(
        trial.model,
        trial.tokenizer,
        trial.prompts,
        max_new_tokens=trial.new_tokens,
        site=trial.site,
        directions=trial.added,
        strengths=1.0,
        steer_tokens=steer_tokens,
        batch_tokens=batch_tokens,
    )
    return len(found)


def products(trial: Trial) -> Callable[[], int]:
    """Torch's own products with the weights that :func:`library` needs for all tokens, no more."""
    seen: list[tuple[Tensor, torch.Size]] = []

    def note(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((layer.weight, inputs[0].shape))

    layers = [layer for layer in trial.model.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    library(trial, "all")
    for handle in handles:
        handle.remove()
    most = max(shape.numel() for _, shape in seen)
    return partial(_multiply, seen, torch.randn(most, dtype=trial.model.dtype))


@torch.inference_mode()
def _multiply(seen: list[tuple[Tensor, torch.Size]], numbers: Tensor) -> int:
    for weight, shape in seen:
        nn.functional.linear(numbers[: shape.numel()].view(shape), weight)
    return len(seen)


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
                max_new_tokens=trial.new_tokens,
                do_sample=True,
                top_k=0,
                pad_token_id=0,
            )
    return sum(map(len, rows))


def batches(rows: int, size: int) -> list[list[int]]:
    """All rows, so many in a call."""
    return [list(range(start, min(start + size, rows))) for start in range(0, rows, size)]
