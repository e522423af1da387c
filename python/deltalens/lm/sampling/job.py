"""What is to be generated: rows, the order in which they are taken up, and what steers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.lm.points.edits import Edits
from deltalens.lm.sampling.draws import Choice, choose, gumbels
from deltalens.lm.sites import Site

_LONGER, _SPARE = 2, 64  # rows share buffers up to this many times the shortest, and columns more


@dataclass(frozen=True)
class Steered:
    """Row r has edit ``condition[r]`` made at ``site``; at its prompt too if ``prompt``."""

    site: Site
    edits: Edits
    condition: list[int]
    prompt: bool

    def of(self, rows: Sequence[int]) -> Tensor:
        """The edits of some rows, int64 [rows]."""
        return torch.tensor([self.condition[row] for row in rows])


@dataclass(frozen=True)
class Job:
    """Rows to complete; ``steered`` is None for the model as it is."""

    model: Any
    prompts: Sequence[list[int]]
    streams: Sequence[int]
    seed: int
    max_new_tokens: int
    temperature: float
    stops: frozenset[int]
    steered: Steered | None

    def length(self, row: int) -> int:
        """Tokens of a row that has all its new ones."""
        return len(self.prompts[row]) + self.max_new_tokens

    def choose(self, logits: Tensor, rows: Sequence[int], steps: npt.NDArray[np.int64]) -> Choice:
        """The next token of each of ``rows``, its new token ``steps[i]``, counted from 0."""
        if self.temperature == 0:
            return choose(logits, torch.empty(0), 0.0)
        streams = np.array([self.streams[row] for row in rows], dtype=np.uint64)
        noise = gumbels(self.seed, streams, steps, logits.shape[1], logits.device)
        return choose(logits, noise, self.temperature)

    @cached_property
    def prefixes(self) -> list[int]:
        """The number of each row's prefix: equal for rows that have the same one."""
        prompts = numbered(map(tuple, self.prompts))
        if self.steered is None or not self.steered.prompt:
            return prompts
        conditions = self.steered.condition
        return numbered(zip(prompts, conditions, strict=True))

    def waves(self) -> list[list[int]]:
        """All rows, longest first and those with one prefix together, in parts of like length."""
        waves: list[list[int]] = []
        rows = range(len(self.prompts))
        for row in sorted(rows, key=lambda row: (-self.length(row), self.prefixes[row])):
            if not waves or self.length(waves[-1][0]) > _LONGER * self.length(row) + _SPARE:
                waves.append([])
            waves[-1].append(row)
        return waves


def numbered(keys: Iterable[Any]) -> list[int]:
    """Each key's number, counted from 0 by first appearance."""
    seen: dict[Any, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]
