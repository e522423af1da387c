"""What CPU scans use beside the scorers, and the rankings of every device, against torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from deltalens.engine.decoder import TensorDecoder
from deltalens.engine.latent.contenders import contenders
from deltalens.engine.latent.entries import entry_products
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.numerics.outer import add_outer
from deltalens.engine.topk.streaming import TopKPath, queries_topk
from deltalens.engine.trust.check import Check, Operands, worst


def ranking_checks(given: Operands, path: TopKPath, ks: tuple[int, ...]) -> Iterator[Check]:
    """The k best of a stream of scores against a stable sort, with ties and NaN."""
    n = given.sizes.n_latents
    scores = (given.normal(2, n, dtype=torch.float32) * 64).round()
    scores[:, ::9] = torch.nan
    order = scores.nan_to_num(nan=-torch.inf).sort(descending=True, stable=True, dim=1).indices
    for k in ks:
        ranking = queries_topk(k, 2, path)
        for start in range(0, n, n // 5 + 1):
            ranking.push(scores[:, start : start + n // 5 + 1], start)
        right = [
            torch.equal(latents, expected[: len(latents)])
            and len(latents) == min(k, n - -(-n // 9))
            for (_, latents), expected in zip(ranking.results(), order, strict=True)
        ]
        yield given.holds(f"top-k, k {k}", all(right))


def outer_checks(given: Operands) -> Iterator[Check]:
    """The sum of outer products that moments are made of."""
    tokens, width = given.sizes.tokens, given.sizes.d_model
    x, y = (given.normal(tokens, width, seed=seed) for seed in (1, 2))
    total = torch.zeros(width, width, dtype=torch.float64)
    add_outer(total, x, y)
    size = x.norm(dim=0)[:, None] * y.norm(dim=0)
    limit = 2 * (tokens + 4) * 2.0**-53
    yield given.check("outer products", worst(total, x.T @ y, size), limit)


def winner_checks(given: Operands) -> Iterator[Check]:
    """The largest pre-activations of every token, and products of single rows."""
    tokens, d_model, n_latents = given.sizes.tokens, given.sizes.d_model, given.sizes.n_latents
    x = given.normal(tokens, d_model, dtype=torch.float32, seed=1)
    rows, held = given.normal(n_latents, d_model, dtype=given.dtype), min(20, n_latents)
    exact = x.double() @ rows.double().T
    size = x.double().norm(dim=1)[:, None] * rows.double().norm(dim=1).max()
    gate = LatentGate(n_latents, keep=held)
    found = contenders(x, TensorDecoder(rows), gate, 0, held, given.impl)
    best, limit = exact.topk(held).values, (d_model + 8) * 2.0**-24
    yield given.check("winners", worst(found.values, best, size), limit)
    held_by = exact.gather(1, found.latents)
    yield given.check("winners' latents", worst(held_by, best, size), 2 * limit)
    of_tokens = torch.arange(tokens).repeat_interleave(held)
    products = entry_products(rows, found.latents.flatten(), x, of_tokens).view(tokens, held)
    yield given.check("entries", worst(products, held_by, size), (d_model + 8) * 2.0**-52)
