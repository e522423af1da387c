"""What a screen saves: long decoders in bfloat16 beside float32 and beside plain PyTorch.

Writes bench/results/screens-<cpu>.csv as it goes: a row per shape and form with the median seconds
of float32, of bfloat16 as the plan has it, with a screen and without, and of chunked PyTorch in
bfloat16 (the token form only). The plan has rates that were measured at the start. About four
minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest import mock

import torch
from torch import Tensor

import deltalens
from contenders import CHUNK, Inputs, random_inputs
from deltalens.engine import problem
from deltalens.engine.cost import screens
from deltalens.engine.impl.cpp import has_screen
from deltalens.engine.trust.rates import measure
from machine import interleaved
from results import Row, write_rows

# Tokens, latents, d_model: those that were too slow once, and from 8 · d_model latents on.
SHAPES = (
    (4096, 32_768, 2304),
    (4096, 65_536, 2304),
    (1024, 18_432, 2304),
    (256, 18_432, 2304),
    (512, 6144, 768),
)
QUICK = ((512, 6144, 768), (256, 4096, 512))
ROUNDS = 3


def plain(inputs: Inputs) -> Tensor:
    """Chunks of decoder rows times all rows, in bfloat16, summed in fp32."""
    grads, acts = inputs.grads.bfloat16(), inputs.centred.bfloat16()

    def scores(rows: Tensor) -> Tensor:
        return -((rows @ grads.T).float() * (rows @ acts.T).float()).mean(1)

    parts = [scores(rows) for rows in inputs.W_dec.split(CHUNK)]
    return torch.cat(parts).topk(inputs.k).indices


def ours(inputs: Inputs, form: str) -> Tensor:
    """The exact top-k."""
    top = deltalens.attribution_topk(
        inputs.acts, inputs.grads, inputs.W_dec, inputs.k, baseline=inputs.baseline, form=form
    )
    assert top.certified
    return top.latents


def with_screen(inputs: Inputs, form: str) -> Tensor:
    """The same through a screen, whether it pays or not."""
    with mock.patch.object(screens, "screened", return_value=True):
        return ours(inputs, form)


def without(inputs: Inputs, form: str) -> Tensor:
    """The same by the scorer alone."""
    with mock.patch.object(problem, "width_of_screen", return_value=None):
        return ours(inputs, form)


def measured(shape: tuple[int, int, int], form: str, rounds: int) -> Row:
    """Medians of rounds that run each once."""
    inputs = random_inputs(*shape, dtype=torch.bfloat16)
    widened = replace(inputs, W_dec=inputs.W_dec.float())
    works: dict[str, Callable[[], object]] = {
        "float32": partial(ours, widened, form),
        "bfloat16": partial(ours, inputs, form),
        "not screened": partial(without, inputs, form),
    }
    if has_screen(torch.bfloat16):
        works["screened"] = partial(with_screen, inputs, form)
    if form == "token":
        works["plain PyTorch"] = partial(plain, inputs)
    times = interleaved(works, rounds)
    plan = deltalens.plan(*shape, dtype=torch.bfloat16, form=form)
    row: Row = dict(zip(("tokens", "n_latents", "d_model"), shape, strict=True))
    row |= {"form": form, "by plan": any(step.name == "bound" for step in plan.cost.steps)}
    for name in ("float32", "bfloat16", "screened", "not screened", "plain PyTorch"):
        row[name] = f"{statistics.median(times[name]):.3f}" if name in times else ""
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, once, and no file")
    quick = parser.parse_args().quick
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # rates that others have measured are not looked at
        print(measure("cpu"))
        for shape in QUICK if quick else SHAPES:
            for form in ("token", "quadratic"):
                rows.append(measured(shape, form, 1 if quick else ROUNDS))
                if len(rows) == 1:
                    print(*rows[0], sep="\t")
                print(*rows[-1].values(), sep="\t", flush=True)
                if not quick:
                    write_rows("screens", rows)


if __name__ == "__main__":
    main()
