"""Sweeps without a model: answers drawn from probabilities that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from deltalens.judge import Verdict
from deltalens.trials.conditions import Grid
from deltalens.trials.log import Key
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, MATCHED, RANDOM, Candidate
from deltalens.trials.verdicts import Outcomes
from deltalens.trials.work import Spending

SHOWN, ABSENT = Verdict("yes", "shown"), Verdict("no", "absent")
INCOHERENT = Verdict("what", "incoherent")
STRENGTHS = (0.2, 0.4)
SAMPLES = 5  # of a condition and prompt, at most


@dataclass
class World:
    """Latents whose effects follow their pushes, prompts that differ, and answers to come.

    effect: of each latent at strength 1, on the log-odds, when added; latents come at a strength
    of ``harm`` to a tenth of incoherent answers. ``extra`` is added to the effects of suspects.
    """

    seed: int
    latents: int = 36
    prompts: int = 24
    extra: float = 0.0
    base: float = -0.5
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    sampled: int = 0
    subject: Any = None
    judge: Any = None
    spending: Any = None

    def __post_init__(self) -> None:
        self.spending = Spending()
        self.subject = SimpleNamespace(model=torch.nn.Identity(), norm=1.0)
        draw = torch.Generator().manual_seed(self.seed)
        self.push = torch.randn(self.latents, generator=draw)
        own = torch.randn(self.latents, generator=draw)
        self.effect = 3 * self.push + 1.5 * own
        self.harm = 0.2 + 0.4 * torch.rand(self.latents, generator=draw)
        self.easy = self.base + 1.0 * torch.randn(self.prompts, generator=draw)
        self.taste = torch.randn(self.latents, self.prompts, generator=draw)
        size = (self.latents + 1, len(STRENGTHS) + 3, self.prompts, SAMPLES)
        self.luck = torch.rand(*size, generator=draw).tolist()
        self.fate = torch.rand(*size, generator=draw).tolist()
        self.order = torch.randperm(self.latents, generator=draw).tolist()

    def sets(self, suspects: int = 8, active: int = 6) -> dict[str, list[Candidate]]:
        """Suspects are latents like all others but for what is ``extra``."""
        signed = [Candidate(latent, 1 if self.push[latent] > 0 else -1) for latent in self.order]
        for item in signed[: suspects + active]:
            self.effect[item.latent] += item.sign * self.extra
        cut = suspects + active, suspects + active + (self.latents - suspects - active) // 2
        return {
            ATTRIBUTION: signed[:suspects],
            ACTIVATION: signed[suspects : cut[0]],
            RANDOM: signed[cut[0] : cut[1]],
            MATCHED: signed[cut[1] :],
        }

    def complete(self, keys: Sequence[Key], *, progress: bool) -> None:
        """What :meth:`ArmWork.complete` does, from the table."""
        for key in keys:
            if key not in self.verdicts:
                self.verdicts[key] = self._verdict(key)
                self.sampled += 1

    def _verdict(self, key: Key) -> Verdict:
        odds, lost = float(self.easy[key.prompt]), 0.01
        row, size = self.latents, abs(key.strength)
        if key.latent is not None:
            row = key.latent
            odds += key.strength * float(self.effect[row] + self.taste[row, key.prompt])
            lost = min(0.9, 0.1 * (size / float(self.harm[row])) ** 3)
        column = round(size * 1000) % (len(STRENGTHS) + 3)
        if self.fate[row][column][key.prompt][key.sample] < lost:
            return INCOHERENT
        luck = self.luck[row][column][key.prompt][key.sample]
        return SHOWN if luck < 1 / (1 + 2.718281828**-odds) else ABSENT


def grid(samples: int = 1) -> Grid:
    return Grid(STRENGTHS, samples, SAMPLES)


def table(
    draw: torch.Generator,
    latents: int,
    prompts: int,
    *,
    effect: Sequence[float] | Tensor,
    spread: float,
    base: float = -0.5,
) -> Outcomes:
    """One answer a latent and prompt, five unsteered; log-odds add up latents' and prompts' own."""
    easy = base + torch.randn(prompts, generator=draw).double()
    own = torch.as_tensor(effect).double() + spread * torch.randn(latents, generator=draw).double()
    taste = 0.7 * torch.randn(latents, prompts, generator=draw).double()
    rates = (own[:, None] + easy + taste).sigmoid()
    shown = torch.bernoulli(rates, generator=draw)
    plain = torch.bernoulli(easy.sigmoid().expand(5, -1), generator=draw).sum(0)
    everything = torch.ones_like(shown)
    return Outcomes(shown, everything, everything.bool(), plain, torch.full_like(plain, 5.0))


def expected_rate(effect: float, spread: float, taste: float, base: float = -0.5) -> float:
    """The mean over latents and prompts of :func:`table`'s rates, by a large sample."""
    draw = torch.Generator().manual_seed(99)
    wide = (1 + spread**2 + taste**2) ** 0.5
    return float((base + effect + wide * torch.randn(2_000_000, generator=draw)).sigmoid().mean())
