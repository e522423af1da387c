"""Examples by brute force: every activation of a corpus in memory, sorted with plain Python."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import deltalens
from deltalens.sae import save_saelens
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
)

MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ContextActs:
    """A context's counted tokens: their ids, the place of the first, and z [tokens, n_latents]."""

    text: int
    first: int
    ids: list[int]
    z: torch.Tensor


def make_exact_model() -> Any:
    """A model whose rows at the site are multiples of 1/64, the same in every batch.

    With an SAE's weights from :func:`make_exact_weights` no fp32 sum of the encoder rounds, so
    that latents are the same to the last bit whatever is computed with what.
    """
    model = make_model(torch.float64)

    def rounded(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return ((output[0] * 64).round() / 64, *output[1:])
        return (output * 64).round() / 64

    model.model.layers[SITE].register_forward_hook(rounded)
    return model


def make_exact_weights(n_latents: int, seed: int) -> torch.Tensor:
    """Rows [n_latents, d_model] of integers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (n_latents, D_MODEL), generator=generator).float()


def read_everything(
    model: Any, tokenizer: Any, texts: list[Any], encoder: Any, length: int
) -> list[ContextActs]:
    """One context after another through the model, none batched."""
    found = []
    for number, text in enumerate(texts, start=1):
        ids = tokenizer(text)["input_ids"] if isinstance(text, str) else text
        head = ids[:1] if ids[:1] == [BOS] else []
        body, step = ids[len(head) :], length - len(head)
        for first in range(0, len(body), step):
            part = body[first : first + step]
            z = encoder.encode(site_rows(model, head + part)[len(head) :].float())
            found.append(ContextActs(number, first, part, z))
    return found


def site_rows(model: Any, ids: list[int]) -> torch.Tensor:
    seen = []
    handle = model.model.layers[SITE].register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    with torch.no_grad():
        model(torch.tensor([ids]))
    handle.remove()
    return seen[0][0][0] if isinstance(seen[0], tuple) else seen[0][0]


def expected(
    contexts: list[ContextActs],
    latent: int,
    *,
    top: int,
    bins: int,
    per_bin: int,
    before: int,
    after: int,
    seed: int,
) -> dict[str, Any]:
    """A latent's line, as far as it does not depend on the tokenizer."""
    values = torch.cat([context.z[:, latent] for context in contexts]).tolist()
    active = [value for value in values if value > 0]
    windows = []
    for number, context in enumerate(contexts):
        column = context.z[:, latent].tolist()
        if max(column) > 0:
            windows.append((number, window(context, column, before, after)))
    by_value = sorted(windows, key=lambda item: (-item[1]["activation"], item[0]))
    by_chance = sorted(windows, key=lambda item: -priority(seed, latent, item[0]))
    sampled = [item for _, item in by_chance[: bins * per_bin]]
    sampled.sort(key=lambda w: (w["activation"], -w["text"], -w["position"]))
    return {
        "tokens": len(values),
        "active": len(active),
        "frequency": len(active) / len(values),
        "mean": math.fsum(active) / len(values),
        "max": written(max(active, default=0.0)),
        "windows": len(windows),
        "histogram": histogram(active),
        "top": [item for _, item in by_value[:top]],
        "quantiles": groups(sampled, bins),
    }


def window(context: ContextActs, column: list[float], before: int, after: int) -> dict[str, Any]:
    peak = column.index(max(column))
    start = max(0, peak - before)
    span = slice(start, peak + after + 1)
    return {
        "text": context.text,
        "position": context.first + peak,
        "activation": written(column[peak]),
        "peak": peak - start,
        "ids": context.ids[span],
        "activations": list(map(written, column[span])),
    }


def written(value: float) -> float:
    """As a file has it: the shortest decimal number that is this float32."""
    return float(str(np.float32(value)))


def groups(windows: list[dict[str, Any]], bins: int) -> list[dict[str, Any]]:
    found = []
    for at in range(bins):
        part = windows[len(windows) * at // bins : len(windows) * (at + 1) // bins]
        if part:
            values = [item["activation"] for item in part]
            found.append({"least": min(values), "largest": max(values), "windows": part})
    return found


def histogram(values: list[float]) -> list[list[float]]:
    edges = [scale * 2.0**power for power in range(-16, 16) for scale in (1.0, 1.5)]
    counts: dict[float, int] = {}
    for value in values:
        edge = max((edge for edge in edges if edge <= value), default=edges[0])
        counts[edge] = counts.get(edge, 0) + 1
    return [[edge, counts[edge]] for edge in sorted(counts)]


def priority(seed: int, latent: int, context: int) -> int:
    """Three steps of splitmix64, in Python's integers."""
    bits = mixed(seed)
    bits = mixed(bits ^ latent)
    return mixed(bits ^ context) >> 1


def mixed(bits: int) -> int:
    bits = (bits + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


N_LATENTS = 50


KEPT = {"top": 6, "bins": 3, "per_bin": 2, "before": 3, "after": 2, "seed": 5}


def make_sae(directory: Path, k: int):
    W_dec = make_exact_weights(N_LATENTS, seed=k)
    save_saelens(
        directory,
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(N_LATENTS),
        W_dec=W_dec,
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": k, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    return deltalens.load_sae(directory)


def make_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    lengths = [draw.randrange(1, 60) for _ in range(count)]
    return [" ".join(f"w{draw.randrange(34)}" for _ in range(length)) for length in lengths]
