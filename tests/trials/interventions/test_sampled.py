"""Interventions while a model generates, against greedy passes of one row with a hook of one's own
that computes each edit in fp64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.lm import resolve_site, sample
from deltalens.study import Baseline
from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.interventions import Intervention, Reference
from deltalens.trials.interventions.treatment import Treatment
from helpers.families import WIDTH, build, token_ids
from helpers.made_saes import LATENTS, draw, made_sae

SITE, STEPS, LATENT = 1, 5, 7
MEAN = draw(WIDTH, seed=3).double()
PROMPTS = [token_ids(length, number) for number, length in enumerate([3, 11, 7, 1])]
INTERVENTIONS = {
    "ablate": (Intervention("ablate"), -1.0),
    "clamp": (Intervention("clamp", reference=Reference(value=6.0)), 1.0),
    "multiply": (Intervention("multiply"), 3.0),
    "add where active": (Intervention("add", only_active=True), 1.0),
}


def edited(name: str, sae: Any, norm: float, value: Tensor) -> Tensor:
    """Of [seq, WIDTH], in fp64 with the library's whole encoder."""
    _, strength = INTERVENTIONS[name]
    row = sae.W_dec.rows(LATENT, LATENT + 1)[0].double()
    z = sae.encoder().encode(value.float())[:, LATENT : LATENT + 1].double()
    unit = row / row.norm()
    change = {
        "ablate": -((value.double() - MEAN) @ unit)[:, None] * unit,
        "clamp": (6.0 * strength - z) * row,
        "multiply": strength * z * row,
        "add where active": strength * norm * (z > 0) * unit,
    }[name]
    small = value.double().norm(dim=1, keepdim=True) <= 10 * norm
    return value + (change * small).to(value)


@torch.no_grad()
def greedy(model: Any, prompt: list[int], start: int, edit: Any) -> list[int]:
    ids = list(prompt)

    def hook(module: Any, args: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        if start < value.shape[1]:
            value[0, start:] = edit(value[0, start:])
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = resolve_site(model, SITE).module.register_forward_hook(hook)
    for _ in range(STEPS):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    handle.remove()
    return ids[len(prompt) :]


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("activation", ["threshold", "topk"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gemma3"])
def test_tokens_are_those_of_passes_with_a_hook(family: str, activation: str, tokens: Any) -> None:
    model = build(family)
    model.generation_config.eos_token_id = None
    site = resolve_site(model, SITE)
    sae = made_sae(WIDTH, activation, site.name)
    norm = 4.0
    changed = 0
    for name, (intervention, strength) in INTERVENTIONS.items():
        treatment = Treatment(
            intervention, sae, as_decoder(sae), site, norm, Baseline(MEAN, 1, None),
            dict.fromkeys(range(LATENTS), 6.0),
        )  # fmt: skip
        rows = [(p, c) for p in PROMPTS for c in (UNSTEERED, Condition(LATENT, strength))] * 2
        random.Random(0).shuffle(rows)
        steer: Any = treatment.steer([condition for _, condition in rows], tokens)
        found = sample(
            model, None, [prompt for prompt, _ in rows], max_new_tokens=STEPS, temperature=0,
            site=site, edits=steer.edits, conditions=steer.conditions, steer_tokens=tokens,
            batch_tokens=250,
        )  # fmt: skip
        plain = {tuple(p): greedy(model, p, 0, lambda value: value) for p in PROMPTS}
        hooked = {
            tuple(p): greedy(
                model, p, 0 if tokens == "all" else len(p),
                lambda value, name=name: edited(name, sae, norm, value),
            )
            for p in PROMPTS
        }  # fmt: skip
        for (prompt, condition), said in zip(rows, found, strict=True):
            expected = plain if condition == UNSTEERED else hooked
            assert said == expected[tuple(prompt)]
        changed += plain != hooked
    assert changed >= 2
