"""What a model split between two devices gives, beside the same model on one: run as a program."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from accelerate import dispatch_model
from torch import Tensor

from deltalens import attribute
from deltalens.lm import Pair, TokenRow, activations, capture, completion_losses, sample
from deltalens.lm.sampling import pool
from helpers import second_device
from helpers.tiny_study import D_MODEL, LAYERS, make_model, make_pairs, make_tokenizer

PAIRS = make_pairs(6)
SITE = 1
POINTS = ("resid_pre", "resid_mid", "attn_out", "mlp_out")
DIRECTIONS = torch.randn(len(PAIRS), D_MODEL, generator=torch.Generator().manual_seed(1))
W_DEC = torch.randn(64, D_MODEL, generator=torch.Generator().manual_seed(2))


def main(first: str, second: str) -> None:
    """Print the largest differences, one JSON object a line."""
    emulated = second_device.NAME in (first, second)
    if emulated:
        second_device.register()  # before autograd counts the devices
    truth = dict(found(make_model()))
    with ExitStack() as stack:
        if emulated:
            # Tensors that wrap others cannot be made in inference mode.
            stack.enter_context(patch.object(pool, "inference", lambda _: torch.no_grad()))
            stack.enter_context(second_device.TwoDevices())
        for crossing in range(LAYERS):
            for devices in ((first, second), (second, first)):
                for name, value in found(divided(crossing, *devices)):
                    print(json.dumps(compared(name, value, truth[name], crossing, devices)))


def compared(
    name: str, value: Tensor, truth: Tensor, crossing: int, devices: tuple[str, str]
) -> dict[str, Any]:
    error = (value.double() - truth.double()).abs().max() / truth.double().abs().max()
    return {
        "crossing": crossing,
        "devices": devices,
        "name": name,
        "error": float(error),
        "type": f"{type(value).__name__} on {value.device}",
    }


def divided(crossing: int, first: str, last: str) -> Any:
    """The model with blocks up to ``crossing`` on one device and the others on the other one."""
    places = {f"model.layers.{n}": first if n <= crossing else last for n in range(LAYERS)}
    places |= {"model.embed_tokens": first, "model.rotary_emb": first}
    places |= {"model.norm": last, "lm_head": last}
    main_device = "cpu" if second_device.NAME in (first, last) else first
    return dispatch_model(make_model(), places, main_device=main_device)


def found(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Whatever runs a model, by name."""
    tokenizer = make_tokenizer()
    for site in (SITE, *(f"blocks.{SITE}.hook_{point}" for point in POINTS)):
        rows = list(capture(model, tokenizer, PAIRS, site=site))
        yield f"acts {site}", torch.cat([row.acts for row in rows])
        yield f"grads {site}", torch.cat([row.grad_positive for row in rows])
    prompts = [list(pair.prompt) for pair in PAIRS]
    yield "activations", torch.cat([acts for _, acts in activations(model, prompts, site=SITE)])
    yield "losses", losses(model, PAIRS)
    yield "texts", texts(model, tokenizer, prompts)
    with tempfile.TemporaryDirectory() as out:
        result = attribute(
            model,
            tokenizer,
            PAIRS,
            W_DEC,
            site=SITE,
            baseline=torch.zeros(D_MODEL),
            k=10,
            run_dir=out,
        )
        yield "latents", result.latents
        yield "scores", result.scores


def losses(model: Any, pairs: list[Pair]) -> Tensor:
    """Of completions while a direction is taken out of the site."""
    rows = [
        TokenRow(list(pair.prompt), list(pair.positive), [True] * len(pair.prompt))
        for pair in pairs
    ]
    unit = DIRECTIONS[0] / DIRECTIONS[0].norm()

    def without(hidden: Tensor, _: object) -> Tensor:
        along = unit.to(hidden.device)
        return hidden - (hidden @ along).unsqueeze(-1) * along

    return completion_losses(model, rows, site=SITE, edit=without)


def texts(model: Any, tokenizer: Any, prompts: list[list[int]]) -> Tensor:
    """Steered completions, padded."""
    drawn = sample(
        model,
        tokenizer,
        prompts,
        max_new_tokens=8,
        site=SITE,
        directions=DIRECTIONS,
        strengths=2.0,
    )
    return torch.tensor([[*tokens, *[-1] * (8 - len(tokens))] for tokens in drawn])


if __name__ == "__main__":
    main(*sys.argv[1:])
