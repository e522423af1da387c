"""Times the kernels with other tile sizes; prints them best first and writes JSON.

The configurations in triton_kernels/configs.py are pinned: this shows whether others would do
better on a device, and changes nothing by itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict

import torch

from deltalens.kernels import fold_symmetric, quadratic_form, token_attribution
from deltalens.kernels.configs import TileConfig
from deltalens.kernels.parts import split_parts
from gpu_contenders import Inputs, moment_of, random_inputs
from gpu_device import RESULTS, SMOKE, Row, Work, conditions, medians, show

SHAPE = (40, 200, 48) if SMOKE else (2048, 1 << 17, 2304)
DTYPE = torch.float16 if SMOKE else torch.bfloat16


def candidates() -> Iterator[TileConfig]:
    """Tiles that may suit; those that do not fit the device are left out when they fail."""
    if SMOKE:
        yield TileConfig(32, 16, 16, 4, 2)
        return
    tiles = [(128, 128, 8), (128, 256, 8), (256, 128, 8), (128, 64, 4), (64, 128, 4), (128, 128, 4)]
    for (rows, columns, warps), depth, stages in itertools.product(tiles, (32, 64, 128), (2, 3, 4)):
        yield TileConfig(rows, columns, depth, warps, stages)


def timed(kernel: str, works: dict[TileConfig, Work]) -> list[Row]:
    rows = [{"kernel": kernel, **asdict(config), "ms": outcome(w)} for config, w in works.items()]
    return sorted(rows, key=lambda row: row["ms"] if isinstance(row["ms"], float) else 1e9)


def outcome(work: Work) -> float | str:
    """Milliseconds, or the name of the error of a configuration that does not fit the device."""
    try:
        return round(medians({"": work}, rounds=3)[""] * 1e3, 3)
    except Exception as error:
        return type(error).__name__


def works(inputs: Inputs) -> dict[str, dict[TileConfig, Work]]:
    grads, acts = (split_parts(x, DTYPE, 1) for x in (inputs.grads, inputs.acts))
    lower = split_parts(fold_symmetric(moment_of(inputs)), DTYPE, 1)[None]
    return {
        "token": {
            config: lambda c=config: token_attribution(
                inputs.W_dec, grads, acts, squares=True, config=c
            )
            for config in candidates()
        },
        "quadratic": {
            config: lambda c=config: quadratic_form(inputs.W_dec, lower, config=c)
            for config in candidates()
        },
    }


def main() -> None:
    inputs = random_inputs(*SHAPE, DTYPE)
    rows = [row for name, each in works(inputs).items() for row in timed(name, each)]
    for kernel in ("token", "quadratic"):
        show(kernel, [row for row in rows if row["kernel"] == kernel][:12])
    if not SMOKE:
        name = conditions()["device"].lower().replace(" ", "-")
        text = json.dumps({"conditions": conditions(), "shape": SHAPE, "rows": rows}, indent=1)
        (RESULTS / f"{name}-tuning.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
