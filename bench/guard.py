"""What the guard adds to a scan for the 100 best; bench/results/guard-<cpu>.csv.

PYTHONPATH=python:bench python bench/guard.py [--latents 131072 --d-model 2304 --rounds 5]

Scans with the guard and without it are run in turns; the ratio of every round's two is taken, and
the median of those. The file is written as rows come.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

import deltalens
from deltalens.engine.scan import rescoring, search
from deltalens.engine.trust.sample import SecondLook
from machine import seconds
from results import write_rows

K = 100


@contextmanager
def unguarded() -> Iterator[None]:
    """Scans without sample and second look."""
    nothing = torch.empty(0, dtype=torch.int64)
    with (
        mock.patch.object(search, "is_guarded", return_value=False),
        mock.patch.object(rescoring, "is_guarded", return_value=False),
        mock.patch.object(SecondLook, "begin", return_value=nothing),
        mock.patch.object(SecondLook, "take"),
    ):
        yield


def times(
    given: tuple[Tensor, Tensor, Tensor], form: str, impl: str, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of scans with and without, of every round."""

    def run() -> None:
        top = deltalens.attribution_topk(*given, K, form=form, impl=impl)
        assert top.certified

    run()
    guarded, plain = [], []
    for number in range(rounds):
        for off in (False, True) if number % 2 else (True, False):
            if off:
                with unguarded():
                    plain.append(seconds(run))
            else:
                guarded.append(seconds(run))
    return guarded, plain


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=int, default=131_072)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    acts, grads = torch.randn(2, options.tokens, options.d_model)
    W_dec = torch.empty(options.latents, options.d_model)
    for part in W_dec.split(1 << 14):
        part.normal_().div_(options.d_model**0.5)
    rows: list[dict[str, object]] = []
    for dtype in (torch.float32, torch.bfloat16):
        given = (acts, grads, W_dec.to(dtype))
        for threads in options.threads:
            torch.set_num_threads(threads)
            for impl in ("cpp", "torch"):
                for form in ("token", "quadratic"):
                    guarded, plain = times(given, form, impl, options.rounds)
                    ratios = [a / b for a, b in zip(guarded, plain, strict=True)]
                    row = {
                        "n_latents": options.latents, "d_model": options.d_model,
                        "tokens": options.tokens, "dtype": str(dtype)[6:], "impl": impl,
                        "form": form, "on_threads": threads,
                        "seconds": f"{statistics.median(plain):.3f}",
                        "guarded": f"{statistics.median(guarded):.3f}",
                        "added_percent": f"{100 * (statistics.median(ratios) - 1):.2f}",
                    }  # fmt: skip
                    print(row, flush=True)
                    rows.append(row)
                    if not options.no_results:
                        write_rows("guard", rows)


if __name__ == "__main__":
    main()
