"""A study whose arguments have been checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deltalens.engine import Decoder
from deltalens.lm import EncodedPair, Pair, Site
from deltalens.lm.gradients.providers import Start
from deltalens.lm.model.parts import execution_device
from deltalens.lm.sinks import LeftOut
from deltalens.study.baseline import Baseline
from deltalens.study.options import Options
from deltalens.study.ranking.latent_path import path_start
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
    def mean(self) -> Tensor:
        """What is subtracted from rows: ā, or 0 where another prompt's rows have been already."""
        return self.options.reading.subtracted(self.baseline.mean)

    @property
    def scan_device(self) -> torch.device:
        """Where decoders are scanned."""
        return scan_device(self.site)

    @cached_property
    def start(self) -> Tensor | Start:
        """Where integrated gradients begin."""
        if self.options.gradients != "integrated-latents":
            return self.baseline.mean
        assert self.by_latents is not None
        return path_start(self.by_latents, self.scan_device)

    @property
    def rows_of(self) -> tuple[Site, int | None]:
        """Equal of studies whose pairs have the same rows: those on an SAE's path are the SAE's."""
        own = self.options.gradients == "integrated-latents"
        return self.site, id(self.by_latents) if own else None


def scan_device(site: Site) -> torch.device:
    """The accelerator the site is on, where it has fp64; otherwise the CPU."""
    device = execution_device(site.module)
    return device if device.type == "cuda" else torch.device("cpu")
