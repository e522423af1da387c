"""What a sweep consists of: conditions, their completions, and each one's own random stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.errors import InputError
from deltalens.study.latents import latent_rows, unit
from deltalens.trials.log import Key
from deltalens.trials.result import SIGNS, Candidate, Direction
from deltalens.trials.together.latents import Latents, members


class Condition(NamedTuple):
    """A latent or several, and how strongly and which way they are intervened on; none for None.

    strength is signed. See :class:`~deltalens.trials.interventions.Intervention`.
    """

    latent: Latents | None
    strength: float


UNSTEERED = Condition(None, 0.0)
HALVINGS = 3  # of the smallest strength, at most


@dataclass(frozen=True)
class Grid:
    """Strengths that every candidate is tried at, all positive and rising, and samples of each
    prompt."""

    strengths: tuple[float, ...]
    samples: int
    unsteered_samples: int

    def __post_init__(self) -> None:
        if not self.strengths or any(not 0 < s < float("inf") for s in self.strengths):
            raise InputError(f"strengths must be positive numbers, got {list(self.strengths)}")
        if list(self.strengths) != sorted(set(self.strengths)):
            raise InputError(f"strengths must rise without repeats, got {list(self.strengths)}")
        if min(self.samples, self.unsteered_samples) < 1:
            raise InputError("samples must be at least 1, for the unsteered model too")

    def weaker(self) -> list[float]:
        """Strengths below the grid, for candidates that none of its own suits; strongest first."""
        return [self.strengths[0] / 2**halved for halved in range(1, HALVINGS + 1)]

    def keys(self, condition: Condition, prompts: Iterable[int]) -> Iterator[Key]:
        """The first attempts at every sample of these prompts."""
        samples = self.unsteered_samples if condition == UNSTEERED else self.samples
        for prompt in prompts:
            for sample in range(samples):
                yield Key(*condition, prompt, sample, 0)


def steered(candidate: Candidate, direction: Direction, strength: float) -> Condition:
    """A candidate at a strength, signed as both ask for."""
    return Condition(candidate.latent, SIGNS[direction] * candidate.sign * strength)


def stream(key: Key) -> int:
    """The number, below 2⁶⁴, of a completion's own stream of random numbers.

    It depends on the key alone, so a completion stays what it is when a sweep grows.
    """
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def directions(decoder: Decoder, conditions: Sequence[Condition], norm: float) -> Tensor:
    """What each condition adds to the residual stream, float32 [conditions, d_model].

    Of several latents it is the unit direction of the sum of theirs.
    """
    added = torch.zeros(len(conditions), decoder.d_model, dtype=torch.float64)
    chosen = [members(condition.latent) for condition in conditions]
    latents = list(dict.fromkeys(latent for each in chosen for latent, _ in each))
    if not latents:
        return added.float()
    units = dict(zip(latents, unit(latent_rows(decoder, latents)), strict=True))
    for row, (condition, each) in enumerate(zip(conditions, chosen, strict=True)):
        if each:
            parts = [sign * units[latent] for latent, sign in each]
            whole = parts[0] if len(parts) == 1 else unit(torch.stack(parts).sum(0)[None])[0]
            added[row] = norm * condition.strength * whole
    return added.float()
