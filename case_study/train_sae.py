"""A TopK SAE (Gao et al. 2024, arXiv:2406.04093) on the corpus' rows, trained by SAELens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from activations import rows_of

BATCH = 2048
HELD_OUT = 50_000


def main() -> None:
    """Write the SAE to --out, with what it explains of rows it has not seen in about.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--site", type=int, required=True)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--samples", type=int, default=3_000_000)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    about = args.out / "about.json"
    if about.exists():
        return
    torch.manual_seed(args.seed)
    rows = torch.from_numpy(np.array(rows_of(args.rows)))
    trained, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:].float()
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=rows.shape[1],
            d_sae=args.latents,
            k=args.k,
            normalize_activations="expected_average_only_in",
        )
    )
    with torch.no_grad():
        sample = trained[torch.randperm(len(trained))[:20_000]].float()
        scale = rows.shape[1] ** 0.5 / sample.norm(dim=1).mean()
        sae.b_dec.copy_(sample.mean(0) * scale)
    steps = args.samples // BATCH
    SAETrainer(
        SAETrainerConfig(
            total_training_samples=args.samples,
            train_batch_size_samples=BATCH,
            lr=args.rate,
            lr_end=args.rate / 10,
            lr_warm_up_steps=steps // 20,
            lr_decay_steps=steps // 4,
            dead_feature_window=150,
            n_batches_for_norm_estimate=50,
            autocast=True,
        ),
        sae,
        batches(trained, args.seed),
    ).fit()
    sae.cfg.metadata.hook_name = f"blocks.{args.site}.hook_resid_post"
    sae.save_inference_model(args.out)
    said = {**vars(args), **explained(sae, held_out), "training_rows": len(trained)}
    said = {name: str(value) if isinstance(value, Path) else value for name, value in said.items()}
    about.write_text(json.dumps(said, indent=1) + "\n")
    print(json.dumps(said, indent=1))


def batches(rows: Tensor, seed: int) -> Iterator[Tensor]:
    """Random rows for ever, every row once before any row twice."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for places in torch.randperm(len(rows), generator=generator).split(BATCH):
            if len(places) == BATCH:
                yield rows[places].float()


@torch.no_grad()
def explained(sae: Any, rows: Tensor) -> dict[str, float]:
    """Share of variance explained, latents never active and active ones a token, of ``rows``."""
    errors, active, fired = 0.0, 0, torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for part in rows.split(BATCH):
        latents = sae.encode(part)
        errors += float((sae.decode(latents) - part).square().sum())
        active += int((latents != 0).sum())
        fired |= (latents != 0).any(0)
    variance = float((rows - rows.mean(0)).square().sum())
    return {
        "explained_variance": 1 - errors / variance,
        "dead_share": 1 - float(fired.float().mean()),
        "active": active / len(rows),
        "held_out_rows": len(rows),
    }


if __name__ == "__main__":
    main()
