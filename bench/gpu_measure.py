"""Times both forms, the top-k, norms and moments on this device; prints tables and writes CSV."""

from __future__ import annotations

import time
import warnings

import torch

from deltalens.engine.cost.outer import sliced_pays
from deltalens.engine.numerics.precision import gamma
from deltalens.engine.numerics.slices import sliced_outer
from deltalens.engine.topk.band import upper_room
from deltalens.engine.topk.streaming import TopKPath, queries_topk
from deltalens.engine.trust.rates import known_roofs
from deltalens.kernels.row_norms import row_norms
from gpu_contenders import (
    Inputs,
    quadratic_contenders,
    random_inputs,
    token_contenders,
)
from gpu_device import DEVICE, SMOKE, Row, Work, medians, peak_bytes, roofs, show, write_results

# Decoders, most wanted first, each with its numbers of tokens; what does not fit the time is left.
DECODERS = [(1 << 20, 2304, (4096,)), (1 << 18, 4096, (1024, 4096)), (1 << 18, 768, (256, 4096)),
            (1 << 16, 2304, (256, 4096, 16_384)), (1 << 21, 2304, (1024,))]  # fmt: skip
SMOKE_DECODERS = [(300, 48, (40,))]
BUDGET = 300.0  # seconds for the forms
NAIVE_BYTES = 40e9


def form_rows(form: str, contenders: dict[str, Work], flop: float, where: Row, roof: float):
    """A row per contender; flop is what the form costs without symmetry or parts."""
    working = {name: work for name, work in contenders.items() if runs(name, work)}
    times = medians(working, rounds=5)
    for name, taken in times.items():
        yield {
            "form": form, **where, "contender": name, "ms": f"{taken * 1e3:.2f}",
            "TFLOP/s": f"{flop / taken / 1e12:.0f}", "of roof": f"{flop / taken / roof:.2f}",
            "peak MiB": f"{peak_bytes(working[name]) / 2**20:.0f}",
        }  # fmt: skip


def runs(name: str, work: Work) -> bool:
    """Whether a contender works here at all: torch.compile needs a compiler, naive code memory."""
    try:
        work()
    except Exception as error:
        if not name.startswith("torch"):
            raise
        warnings.warn(f"{name} is left out: {type(error).__name__}: {error}"[:200], stacklevel=2)
        return False
    return True


def measure_forms(roof: float) -> list[Row]:
    rows: list[Row] = []
    started = time.perf_counter()
    for n_latents, d_model, token_counts in SMOKE_DECODERS if SMOKE else DECODERS:
        for dtype in (torch.float16,) if SMOKE else (torch.bfloat16,):
            for tokens in token_counts:
                if time.perf_counter() - started > BUDGET:
                    break
                inputs = random_inputs(tokens, n_latents, d_model, dtype)
                where = {"N": n_latents, "d": d_model, "R": tokens, "dtype": str(dtype)[6:]}
                rows += one_shape(inputs, where, roof, quadratic=tokens == token_counts[-1])
                del inputs
    return rows


def one_shape(inputs: Inputs, where: Row, roof: float, *, quadratic: bool) -> list[Row]:
    n_latents, d_model = inputs.W_dec.shape
    tokens = len(inputs.acts)
    naive = 12.0 * tokens * n_latents < NAIVE_BYTES
    flop = 4.0 * n_latents * tokens * d_model
    rows = list(form_rows("token", token_contenders(inputs, naive), flop, where, roof))
    if quadratic:
        flop = 2.0 * n_latents * d_model**2
        rows += form_rows("quadratic", quadratic_contenders(inputs), flop, where, roof)
    return rows


def measure_topk() -> list[Row]:
    """The plan's paths, "kernel" and "whole", against writing all scores and one torch.topk."""
    rows: list[Row] = []
    n, tile = (4000, 1000) if SMOKE else (1 << 21, 1 << 17)
    for queries in (1, 8):
        scores = torch.randn(queries, n, device=DEVICE)

        def stream(path: TopKPath, k: int, scores: torch.Tensor = scores) -> None:
            ranking = queries_topk(k, len(scores), path)
            for start in range(0, n, tile):
                ranking.push(scores[:, start : start + tile], start)
            ranking.results()

        for k in (100, 4096, upper_room(100), upper_room(4096)) if not SMOKE else (10,):
            times = medians(
                {
                    "kernel": lambda k=k, run=stream: run("kernel", k),
                    "whole": lambda k=k, run=stream: run("whole", k),
                    "write, then topk": lambda k=k, s=scores: s.clone().topk(k),
                }
            )
            for name, taken in times.items():
                rows.append({"queries": queries, "N": n, "k": k, "top-k": name,
                             "ms": f"{taken * 1e3:.3f}"})  # fmt: skip
    return rows


def measure_norms(bandwidth: float) -> list[Row]:
    n, width = (500, 64) if SMOKE else (1 << 19, 2304)
    rows: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        W_dec = torch.randn(n, width, device=DEVICE).to(dtype)
        taken = medians({"kernel": lambda W_dec=W_dec: row_norms(W_dec)})["kernel"]
        rows.append({"norms of": str(dtype)[6:], "ms": f"{taken * 1e3:.3f}",
                     "of roof": f"{W_dec.nbytes / taken / bandwidth:.2f}"})  # fmt: skip
    return rows


def measure_moments() -> list[Row]:
    """A sum of outer products in fp64 and from slices, whichever the plan takes, and the errors.

    "off" is the spectral norm of the difference, "bound" what both together may be off.
    """
    rows: list[Row] = []
    for width, tokens in ((48, 300),) if SMOKE else ((768, 4096), (2304, 3640), (4096, 2048)):
        x, y = (torch.randn(tokens, width, dtype=torch.float64, device=DEVICE) for _ in range(2))
        size = float(x.norm(dim=1) @ y.norm(dim=1))
        allowed = gamma(tokens, torch.float64) * size

        def sliced(x: torch.Tensor = x, y: torch.Tensor = y, allowed: float = allowed):
            return sliced_outer(x, y, allowed)

        total = x.T @ y
        times = medians({"fp64": lambda x=x, y=y: x.T @ y, "slices": sliced})
        found = sliced()
        assert found is not None
        off = float(torch.linalg.matrix_norm(found.total - total, 2))
        planned = "slices" if sliced_pays(tokens, width, known_roofs(DEVICE)) else "fp64"
        for name, taken in times.items():
            rows.append({"R": tokens, "d": width, "moment": name, "ms": f"{taken * 1e3:.2f}",
                         "TFLOP/s": f"{2.0 * tokens * width**2 / taken / 1e12:.2f}",
                         "planned": planned, "off": f"{off:.1e}",
                         "bound": f"{found.error + allowed:.1e}"})  # fmt: skip
    return rows


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    found = roofs()
    tops, norms = measure_topk(), measure_norms(found["bandwidth"])
    moments = measure_moments()
    forms = measure_forms(found["bf16"])
    write_results("roofs", [{name: f"{value:.4g}" for name, value in found.items()}])
    write_results("topk", tops)
    write_results("norms", norms)
    write_results("moments", moments)
    write_results("forms", forms)
    show("top-k", tops)
    show("norms", norms)
    show("moments", moments)
    show("both forms; TFLOP/s count 4·N·R·d and 2·N·d², whatever was saved", forms)
    print(
        f"\nroofs: bf16 {found['bf16'] / 1e12:.0f} TFLOP/s, fp32 {found['fp32'] / 1e12:.1f} "
        f"TFLOP/s, copy {found['bandwidth'] / 1e12:.2f} TB/s"
    )


if __name__ == "__main__":
    main()
