"""The same numbers the long way: one row a pass, plain autograd, a hook of its own, fp64 sums."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[list[int], list[int], list[int]]  # prompt, positive, negative

_NOT_TEXT = re.compile(r"vision|visual|audio|image|speech|talker|token2wav|perceiver|mtp")


def text_config(model: Any) -> Any:
    """The configuration of the part that reads text."""
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def block(model: nn.Module, layer: int) -> nn.Module:
    """Decoder block ``layer``: of the shallowest list of as many modules as the text has layers,
    outside every part that reads something else."""
    count = int(text_config(model).num_hidden_layers)
    named = [  # an encoder's only where there is no other: BERT's blocks are one's
        ("encoder" in name, name.count("."), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not _NOT_TEXT.search(name)
    ]
    if not named:
        raise LookupError(f"no list of {count} blocks")
    return min(named, key=lambda found: found[:3])[3][layer]


@contextmanager
def replaced(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context the module's output is ``replace(output)``."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, (tuple, list)):
            return type(output)([replace(output[0]), *output[1:]])
        return replace(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def loss(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """-log p(completion | prompt) of one row, in fp64 from the logits on."""
    device = next(model.parameters()).device
    ids = torch.tensor([prompt + completion], device="cpu" if device.type == "meta" else device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    return -logits.log_softmax(-1)[range(len(completion)), completion].sum()


def gradient(
    model: Any, where: nn.Module, prompt: list[int], completion: list[int]
) -> tuple[Tensor, Tensor]:
    """Activations at ``where`` and the loss's gradient there, fp64 [prompt tokens, d_model]."""
    leaves: list[Tensor] = []

    def leaf(hidden: Tensor) -> Tensor:
        leaves.append(hidden.detach().requires_grad_(True))
        return leaves[0]

    with torch.inference_mode(False), torch.enable_grad(), replaced(where, leaf):
        total = loss(model, prompt, completion)
        (slope,) = torch.autograd.grad(total, leaves[0])
    count = len(prompt)
    return leaves[0].detach()[0, :count].double().cpu(), slope[0, :count].double().cpu()


def scores(
    model: Any, where: nn.Module, triples: list[Triple], rows: Tensor, mean: Tensor
) -> Tensor:
    """Mean over pairs of δ(C) − δ(C′) of every latent, fp64 [latents]."""
    units = nn.functional.normalize(rows.double(), dim=1)
    every = []
    for prompt, *completions in triples:
        deltas = []
        for completion in completions:
            acts, slopes = gradient(model, where, prompt, completion)
            products = (slopes @ units.T) * ((acts - mean.double()) @ units.T)
            deltas.append(-products.mean(0))
        every.append(deltas[0] - deltas[1])
    return torch.stack(every).mean(0)


@torch.no_grad()
def ablation(
    model: Any, where: nn.Module, triples: list[Triple], rows: Tensor, mean: Tensor
) -> Tensor:
    """(ΔL(C) − ΔL(C′)) / T with each row's direction put back to its mean, fp64 [pairs, rows]."""
    units = nn.functional.normalize(rows.double(), dim=1)
    found = torch.zeros(len(triples), len(units), dtype=torch.float64)
    for pair, (prompt, *completions) in enumerate(triples):
        for sign, completion in zip((1, -1), completions, strict=True):
            plain = loss(model, prompt, completion)
            for latent, unit in enumerate(units):
                with replaced(where, _ablated(unit, mean, len(prompt))):
                    change = loss(model, prompt, completion) - plain
                found[pair, latent] += sign * change.cpu() / len(prompt)
    return found


def _ablated(unit: Tensor, mean: Tensor, tokens: int) -> Callable[[Tensor], Tensor]:
    def replace(hidden: Tensor) -> Tensor:
        acts = hidden[:, :tokens].double()
        direction, centre = unit.to(acts), mean.to(acts)
        moved = acts - ((acts - centre) @ direction)[..., None] * direction
        return torch.cat([moved.to(hidden.dtype), hidden[:, tokens:]], dim=1)

    return replace


@torch.no_grad()
def shortfall(
    model: Any,
    where: nn.Module,
    prompt: list[int],
    got: list[int],
    added: Tensor,
    *,
    tokens: int,
    generated_only: bool,
    stops: frozenset[int] = frozenset(),
) -> float:
    """How far below the largest logit, relative to it, the tokens of ``got`` are at most.

    Each is judged by a pass over everything before it, without a cache: 0 where every one is the
    most probable. Infinite where ``got`` ends too early, too late or not with a stop.
    """
    ids = list(prompt)
    start = len(prompt) if generated_only else 0
    largest = 0.0

    def replace(hidden: Tensor) -> Tensor:
        moved = hidden[:, start:] + added.to(hidden)
        return torch.cat([hidden[:, :start], moved], dim=1)

    for place in range(tokens):
        with replaced(where, replace):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        if place == len(got):
            return largest if int(logits.argmax()) in stops else float("inf")
        gap = (logits.max() - logits[got[place]]) / logits.abs().max()
        largest = max(largest, float(gap))
        ids.append(got[place])
    return largest if len(got) == tokens else float("inf")


@torch.no_grad()
def cached(
    model: Any,
    where: nn.Module,
    prompt: list[int],
    added: Tensor,
    *,
    tokens: int,
    generated_only: bool,
) -> list[int]:
    """What the model's own ``generate`` makes of one row, greedily, with the cache it chooses."""
    passes = 0

    def replace(hidden: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return hidden if generated_only and passes == 1 else hidden + added.to(hidden)

    with replaced(where, replace):
        found = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
    return found[0, len(prompt) :].tolist()
