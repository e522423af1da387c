"""The ablation check of a run, on disk."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.storage.atomic import write_text
from deltalens.study.attribution import Attribution
from deltalens.study.latents import latent_rows

ABLATION_FILE = "ablation.csv"


def first_order(attribution: Attribution, source: Any, count: int) -> Tensor:
    """The run's per-pair values [pairs, count] of what is ablated: latents, or unit directions."""
    values = attribution.per_pair[:, :count]
    if attribution.metadata["options"].get("score") == "latent":
        return values
    if attribution.metadata["options"]["normalize"]:
        return values
    rows = latent_rows(as_decoder(source), attribution.latents[:count])
    return values / rows.square().sum(1)


def write_ablation(directory: Path, latents: Tensor, estimates: Tensor, exact: Tensor) -> None:
    """``ablation.csv``: means over pairs of both [pairs, latents] tensors, by rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "latent", "first_order", "exact"])
    means = zip(latents.tolist(), estimates.mean(0).tolist(), exact.mean(0).tolist(), strict=True)
    for rank, (latent, estimate, true) in enumerate(means, start=1):
        writer.writerow([rank, latent, repr(estimate), repr(true)])
    write_text(directory / ABLATION_FILE, text.getvalue())
