"""Makes one study in several processes, and maybe kills one."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from deltalens.ranks.processes import joined
from deltalens.sae import load_sae, save_saelens
from deltalens.study import Baseline, attribute
from helpers.forked_ranks import RankFailed, launch
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs

PAIRS = 9
LATENTS = 4 * 8192 + 123  # five tiles
capture_module = importlib.import_module("deltalens.study.running.capture")
row_store_module = importlib.import_module("deltalens.study.running.row_store")


def decoder() -> torch.Tensor:
    """Random rows, some of them equal across tiles."""
    rows = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(1))
    rows[30_000:30_040] = rows[:40]
    return rows


def sae(directory: Path) -> Any:
    """With the decoder above, and an encoder that reads along its rows, four latents a token."""
    if not directory.exists():
        rows = decoder()
        config = {"k": 4, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}}
        save_saelens(
            directory,
            W_enc=rows.T.contiguous(),
            b_enc=torch.zeros(LATENTS),
            W_dec=rows,
            b_dec=torch.zeros(D_MODEL),
            cfg=config,
        )
    return load_sae(directory)


def study(directory: Path, **changes: Any) -> None:
    given = {
        "decoder": decoder(),
        "baseline": Baseline(torch.linspace(-1, 1, D_MODEL), 3, None, {"source": "test"}),
        "k": 60,
        "flips": 100,
        "save_scores": True,
        "run_dir": directory,
        **changes,
    }
    attribute(make_model(), None, make_pairs(PAIRS), site=SITE, **given)


def work(directory: Path, killed: int | None) -> None:
    """One process's part; process ``killed`` ends when it has captured one shard."""
    row_store_module.SHARD_PAIRS = 2
    torch.set_num_threads(1)
    captured = capture_module._capture_shard
    with joined() as ranks:

        def capture_shard(shard: range, *rest: Any) -> None:
            captured(shard, *rest)
            with directory.with_suffix(".captured").open("a") as log:
                log.write(f"{shard.start}\n")
            if ranks.rank == killed:
                os.kill(os.getpid(), signal.SIGKILL)

        capture_module._capture_shard = capture_shard
        study(directory, ranks=ranks)


def work_by_latents(directory: Path, killed: int | None) -> None:
    """One process's part of the same study by the latents' own activations."""
    row_store_module.SHARD_PAIRS = 2
    torch.set_num_threads(1)
    with joined() as ranks:
        of_latents = {"decoder": sae(directory.parent / "sae"), "score": "latent", "k": 20}
        study(directory, baseline=Baseline.zero(D_MODEL), ranks=ranks, **of_latents)


def main(command: str, *arguments: str) -> None:
    directory = Path(arguments[0])
    if command == "sizes":
        for size in map(int, arguments[1:]):
            launch(size, directory / f"run-{size}", job=work)
        return
    if command == "latents":
        sae(directory / "sae")
        for size in map(int, arguments[1:]):
            launch(size, directory / f"run-{size}", job=work_by_latents)
        return
    try:
        launch(3, directory / "killed", killed=1, job=work)
    except RankFailed:
        print(sorted(path.name for path in (directory / "killed" / ".rows").glob("0*")))
    launch(2, directory / "killed", job=work)


if __name__ == "__main__":
    main(*sys.argv[1:])
