"""Every kernel on this device against fp64; exits with 1 when one is wrong."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import deltalens
from deltalens.engine.impl import triton as triton_impl
from deltalens.engine.tile import Scorer
from deltalens.engine.token_rows import TokenRows
from deltalens.kernels import (
    StreamingTopK,
    fold_symmetric,
    latent_attribution,
    quadratic_form,
    token_attribution,
)
from deltalens.kernels.parts import split_parts
from deltalens.kernels.row_norms import row_norms
from gpu_device import DEVICE, SMOKE, Row, show, write_results

DTYPES = [torch.float32, torch.float16, *([] if SMOKE else [torch.bfloat16])]
# Aligned, odd, and in rows that do not start on 16 bytes; tokens, d_model, n_latents.
SHAPES = (
    [(33, 40, 70)] if SMOKE else [(1, 1, 1), (333, 768, 3000), (300, 1000, 777), (97, 333, 500)]
)
UNIT = 2.0**-22


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE).to(dtype)


def checks() -> Iterator[Row]:
    """Rows with the largest error of a kernel, relative to the size of the terms, and its limit."""
    for (tokens, d_model, n_latents), dtype in itertools.product(SHAPES, DTYPES):
        for parts in (1, 3) if dtype != torch.float32 else (1,):
            where = {"dtype": str(dtype)[6:], "parts": parts}
            where |= {"shape": f"{tokens}×{d_model}×{n_latents}"}
            for name, error, limit in forms(tokens, d_model, n_latents, dtype, parts):
                yield {"kernel": name, **where, "error": f"{error:.1e}", "limit": f"{limit:.1e}",
                       "ok": error <= limit}  # fmt: skip
    yield from sums()
    yield from bounds()
    yield from uploads()
    yield from rankings()


def forms(
    tokens: int, d_model: int, n_latents: int, dtype: torch.dtype, parts: int
) -> Iterator[tuple[str, float, float]]:
    W_dec, W_enc = normal(n_latents, d_model, dtype=dtype), normal(n_latents, d_model, dtype=dtype)
    grads, acts = (split_parts(normal(tokens, d_model), dtype, parts) for _ in range(2))
    rows, limit = W_dec.double(), (2 * d_model * parts + tokens + 4) * UNIT
    x, y = (rows @ each.double().sum(0).T for each in (grads, acts))
    size = rows.norm(dim=1).square() * (
        grads.double().sum(0).norm(dim=1) @ acts.double().sum(0).norm(dim=1)
    )
    exact = {"sum": (x * y).sum(1), "abs": (x * y).abs().sum(1), "max": (x * y).amax(1)}
    exact["positive"] = (x * y).clamp(min=0).sum(1)
    for reduction, expected in exact.items():
        result = token_attribution(W_dec, grads, acts, reduction=reduction, squares=True)
        yield f"token {reduction}", worst(result.scores, expected, size), limit
    cut = torch.tensor(sorted({0, tokens // 3, tokens // 2, tokens}))
    sums = torch.stack([(x * y)[:, a:b].sum(1) for a, b in itertools.pairwise(cut.tolist())])
    result = token_attribution(W_dec, grads, acts, reduction="segments", segments=cut)
    assert result.spread is not None
    yield "token segments", worst(result.scores, sums.mean(0), size), limit
    spread = (sums - sums.mean(0)).square().sum(0)
    yield "token spread", worst(result.spread, spread, size.square()), 4 * limit
    bias, mean = normal(n_latents, dtype=torch.float32), normal(n_latents, dtype=torch.float32)
    pre = W_enc.double() @ acts.double().sum(0).T + bias.double()[:, None]
    z = torch.where(pre > 0.5, pre, 0.0) - mean.double()[:, None]
    zeros = torch.zeros_like(bias)
    scores = latent_attribution(
        W_dec,
        W_enc,
        grads,
        acts,
        latents=torch.stack([zeros + 1, bias, 0.5 - bias, mean, zeros, zeros]),
        tokens=torch.tensor([[-torch.inf], [0.0], [0.0]], device=bias.device).repeat(1, tokens),
    ).scores
    # A pre-activation within rounding of the threshold may fall on either side.
    near = ((pre - 0.5).abs() < 1e-4 * pre.abs().max()).double() * 0.5
    slack = (x.abs() * near).sum(1)
    largest = (x.abs() * (pre.abs() + z.abs() + 1)).sum(1) + size
    off = ((scores.double() - (x * z).sum(1)).abs() - slack).clamp(min=0)
    yield "latent", float((off / largest).max()), 2 * limit
    moment = normal(d_model, d_model)
    lower = split_parts(fold_symmetric(moment + moment.T), dtype, parts)
    whole = lower.double().sum(0)
    expected = ((rows @ whole.T) * rows).sum(1)
    terms = ((rows.abs() @ whole.abs().T) * rows.abs()).sum(1)
    scores = quadratic_form(W_dec, lower[None])[0]
    yield "quadratic", worst(scores, expected, terms), limit
    yield "norms", worst(row_norms(W_dec), rows.norm(dim=1), rows.norm(dim=1)), 1e-14


def worst(scores: Tensor, exact: Tensor, size: Tensor) -> float:
    """The largest error relative to ``size``; NaN never passes."""
    return float(((scores.double() - exact).abs() / size).nan_to_num(nan=torch.inf).max())


def sums() -> Iterator[Row]:
    """How much of the assumed error of a tensor core's sums is used where nothing cancels."""
    d_model = 64 if SMOKE else 4096
    leading = torch.full((1, 1, d_model), 2.0**-12, dtype=torch.float64, device=DEVICE)
    leading[..., 0] = 1.0  # every other product is less than the last bit of the first
    spread = 1 + torch.rand(1, 1, d_model, dtype=torch.float64, device=DEVICE)
    for (name, row), dtype in itertools.product((("first", leading), ("even", spread)), DTYPES[1:]):
        held = row.to(dtype)
        exact = held[0].double().square().sum() ** 2
        found = token_attribution(held[0].contiguous(), held, held).scores.double()
        used = float((found - exact).abs() / exact) / (2 * d_model * UNIT)
        yield {"kernel": f"sums, {name}", "dtype": str(dtype)[6:], "error": f"{used:.3f}",
               "limit": "1.000", "ok": used <= 1}  # fmt: skip


def bounds() -> Iterator[Row]:
    """The engine on the kernels: bounds hold, runs repeat bitwise, the top-k is the exact one."""
    tokens, d_model, n_latents = (20, 24, 200) if SMOKE else (500, 768, 50_000)
    for form, dtype in itertools.product(("token", "quadratic"), DTYPES):
        acts, grads = (normal(tokens, d_model, dtype=torch.float32) for _ in range(2))
        W_dec = normal(n_latents, d_model, dtype=dtype)
        exact = deltalens.attribution(acts, grads, W_dec[:4096], form="token", impl="reference")
        scorer = screen_of(form, acts, grads, dtype)
        rows = W_dec[:4096]
        scored = scorer.scores_and_error(rows, row_norms(rows))
        off = (scored.scores[0] - exact.double()).abs() - 2.0**-23 * exact.double().abs()
        used = float((off / scored.error[0]).max())
        yield {"kernel": f"screen {form}", "dtype": str(dtype)[6:], "error": f"{used:.2f}",
               "limit": "1.00", "ok": used <= 1}  # fmt: skip
        top = [
            deltalens.attribution_topk(acts, grads, W_dec, 100, form=form, impl="triton")
            for _ in range(2 if SMOKE else 20)
        ]
        expected = deltalens.attribution_topk(acts, grads, W_dec, 100, form=form, impl="torch")
        same = all(torch.equal(each.scores, top[0].scores) for each in top)
        right = torch.equal(top[0].latents, expected.latents) and top[0].certified
        yield {"kernel": f"top-k {form}", "dtype": str(dtype)[6:], "ok": same and right}


def screen_of(form: str, acts: Tensor, grads: Tensor, dtype: torch.dtype) -> Scorer:
    tokens, d_model = acts.shape
    if form == "token":
        baseline = torch.zeros(d_model, dtype=torch.float64, device=DEVICE)
        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64, device=DEVICE)
        rows = TokenRows(acts, grads, baseline, weights)
        return triton_impl.TokenScorer.prepare(rows, dtype=dtype, screen=True)
    moment = deltalens.CrossMoment(d_model, DEVICE)
    moment.add(acts, grads)
    rounding = torch.tensor([moment.rounding], dtype=torch.float64, device=DEVICE)
    return triton_impl.QuadraticScorer.prepare(
        moment.matrix[None], rounding, dtype=dtype, screen=True
    )


def uploads() -> Iterator[Row]:
    """A decoder in host memory, copied in several tiles, against the same one on the device."""
    tokens, d_model, n_latents = (20, 24, 200) if SMOKE else (300, 768, 250_001)
    acts, grads = (normal(tokens, d_model, dtype=torch.float32) for _ in range(2))
    for form, dtype in itertools.product(("token", "quadratic"), DTYPES):
        resident = torch.randn(n_latents, d_model, device=DEVICE).to(dtype)
        host = resident.cpu()
        scores, top = (
            [work(acts, grads, W_dec, form=form, impl="triton") for W_dec in (host, resident)]
            for work in (deltalens.attribution, deltalens.attribution_topk)
        )
        same = torch.equal(*scores) and torch.equal(top[0].latents, top[1].latents)
        yield {"kernel": f"upload {form}", "dtype": str(dtype)[6:],
               "ok": same and torch.equal(top[0].scores, top[1].scores)}  # fmt: skip


def rankings() -> Iterator[Row]:
    """The streaming top-k against a stable sort, with ties and NaN."""
    n = 3000 if SMOKE else 1_000_000
    scores = (normal(2, n, dtype=torch.float32) * 64).round()
    scores[:, ::9] = torch.nan
    for k in (1, 100, 4096):
        ranking = StreamingTopK(k, 2)
        for start in range(0, n, n // 5 + 1):
            ranking.push(scores[:, start : start + n // 5 + 1], start)
        _, latents = ranking.result()
        order = scores.nan_to_num(nan=-torch.inf).sort(descending=True, stable=True, dim=1)
        yield {"kernel": "streaming top-k", "shape": f"2×{n}, k {k}",
               "ok": torch.equal(latents, order.indices[:, : latents.shape[1]])}  # fmt: skip


def main() -> int:
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    rows = list(checks())
    wrong = [row for row in rows if not row["ok"]]
    write_results("checks", rows)
    show(f"{len(rows) - len(wrong)} of {len(rows)} checks hold", wrong or rows[-16:])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
