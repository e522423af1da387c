"""A study whose arguments have been checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from deltalens.engine import Decoder
from deltalens.lm import EncodedPair, Pair, Site
from deltalens.lm.model.parts import execution_device
from deltalens.lm.sinks import LeftOut
from deltalens.study.baseline import Baseline
from deltalens.study.options import Options
from deltalens.study.ranking.latent_score import LatentScore


@dataclass(frozen=True)
class PreparedStudy:
    """Everything that was given, checked."""

    model: Any
    tokenizer: Any
    pairs: list[Pair]
    encoded: list[EncodedPair]
    source: Any
    decoder: Decoder
    site: Site
    baseline: Baseline
    options: Options
    left_out: LeftOut
    settings: dict[str, Any]
    by_latents: LatentScore | None  # for score="latent"

    @property
    def scan_device(self) -> torch.device:
        """Where decoders are scanned."""
        return scan_device(self.site)


def scan_device(site: Site) -> torch.device:
    """The accelerator the site is on, where it has fp64; otherwise the CPU."""
    device = execution_device(site.module)
    return device if device.type == "cuda" else torch.device("cpu")
