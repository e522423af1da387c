"""A small survey: three behaviours at three sites of the tiny model, with decoders that count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from deltalens.lm import Pair
from deltalens.study import Baseline, Survey, attribute, survey
from helpers.tiny_study import D_MODEL, make_model, make_pairs

SITES = [0, "blocks.1.hook_mlp_out", 2]
FOLDERS = ["site-0", "site-1-mlp_out", "site-2"]
LATENTS = 2 * 8192 + 123  # three tiles


class CountingDecoder:
    """Rows that note how often each was read as part of more than one."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self.reads: Counter[int] = Counter()
        self.spans: list[tuple[int, int]] = []

    @property
    def n_latents(self) -> int:
        return self._rows.shape[0]

    @property
    def d_model(self) -> int:
        return self._rows.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self._rows.dtype

    def rows(self, start: int, stop: int) -> torch.Tensor:
        if stop - start > 1:  # a row by itself is rescored, or a part of a fingerprint
            self.spans.append((start, stop))
            self.reads.update(range(start, stop))
        return self._rows[start:stop]


def rows(seed: int, latents: int = LATENTS) -> torch.Tensor:
    """Random rows, some of them equal across tiles."""
    found = torch.randn(latents, D_MODEL, generator=torch.Generator().manual_seed(seed))
    equal = min(40, latents // 20)
    found[latents // 2 : latents // 2 + equal] = found[:equal]
    return found


def behaviours(*counts: int) -> dict[str, list[Pair]]:
    """Of different numbers of pairs, whose completions are alike within one."""
    found = {}
    named = zip(("advice", "flattery", "lies & co"), counts or (9, 6, 5), strict=True)
    for number, (name, count) in enumerate(named):
        pairs = make_pairs(count, seed=number)
        found[name] = [
            Pair(pair.prompt, [10 + number, 11], [20, 21 + number], id=pair.id) for pair in pairs
        ]
    return found


def decoders(latents: int = LATENTS) -> dict[Any, CountingDecoder]:
    return {site: CountingDecoder(rows(n, latents)) for n, site in enumerate(SITES)}


def baselines() -> dict[Any, Baseline]:
    return {
        site: Baseline(torch.linspace(-1, 1, D_MODEL) * (n + 1) / 3, 3, None)
        for n, site in enumerate(SITES)
    }


OPTIONS: dict[str, Any] = {"k": 30, "flips": 60, "check": 2}


def make_survey(directory: Path, **changes: Any) -> Survey:
    given: dict[str, Any] = {
        "behaviours": behaviours(),
        "decoders": decoders(),
        "baseline": baselines(),
        "run_dir": directory,
        **OPTIONS,
        **changes,
    }
    return survey(make_model(), None, **given)


def alone(behaviour: str, site: Any, run_dir: Path, **changes: Any) -> Any:
    """One of its studies by itself."""
    given: dict[str, Any] = {
        "decoder": decoders().get(site),
        "baseline": baselines().get(site),
        "run_dir": run_dir,
        "metadata": {"behaviour": behaviour},
        **OPTIONS,
        **changes,
    }
    return attribute(make_model(), None, behaviours()[behaviour], site=site, **given)
