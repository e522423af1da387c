"""What every scan told is held against fp64: of the latents it found, and of a sample of all.

A scan that raised the bar too high did so by a latent among its best, which is scored again; one
that left a latent out that belongs in is found if it is wrong about the sample too.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.topk.held import Kept
from deltalens.engine.trust.conditions import device_name
from deltalens.engine.trust.sample import Told
from deltalens.engine.trust.verdicts import Verdict, keep_verdict
from deltalens.ranks.ranks import Ranks

_ROUNDING = 2.0**-48  # of the fp64 arithmetic on intervals, relative
_AFTER = {"torch": "reference"}  # what does a scan again that another did wrong; else torch


class KernelWarning(RuntimeWarning):
    """A scan was wrong, was discarded and done again."""


class Violation(NamedTuple):
    """A latent of which a scan told what is not so."""

    latent: int
    said: str


class Truth(NamedTuple):
    """Keys of some latents in fp64 with the bounds of those, and what they may do."""

    keys: Tensor  # fp64 [m]
    error: Tensor  # fp64 [m]
    finite: Tensor  # bool [m]
    absent: Tensor | None = None  # bool [m], where only present latents rank: surely absent ones
    present: Tensor | None = None  # bool [m], surely present ones


def is_guarded(impl: str) -> bool:
    """Whether a scan computes otherwise than what it would be held against."""
    return impl != "reference"


def disagreement(told: Told, truth: Truth) -> Violation | None:
    """The first latent that an interval does not hold, or that was wrongly let in or left out."""
    slack = truth.error + _ROUNDING * (truth.keys.abs() + truth.error)
    ranked = ~told.upper.isnan()
    outside = (truth.keys + slack < told.lower) | (truth.keys - slack > told.upper)
    admitted, refused = truth.finite, ~truth.finite
    if truth.absent is not None and truth.present is not None:
        admitted = admitted & truth.present
        refused = refused | (truth.absent & (told.lower > -torch.inf))
    wrong = torch.where(ranked, outside | refused, admitted)
    return _first(wrong, told.latents, "an interval without its score")


def apart(told: Told, also: Told, *, ranked: bool = False) -> Violation | None:
    """The first latent of which two scans cannot both be right; with ``ranked`` also where only one
    says that it can rank, which rounding may decide where absent latents cannot."""
    wrong = (told.upper < also.lower) | (also.upper < told.lower)
    if ranked:
        wrong |= told.upper.isnan() != also.upper.isnan()
    return _first(wrong, told.latents, "two intervals that do not meet")


def lost(told: Told, kept: Kept) -> Violation | None:
    """The first latent that should have been kept."""
    if not kept.complete:
        return None
    latents, upper = told.latents.to(kept.latents.device), told.upper.to(kept.latents.device)
    wrong = (upper >= kept.threshold) & ~torch.isin(latents, kept.latents)
    return _first(wrong, latents, "an interval that reaches the best, and lost it")


def beyond(values: Tensor, scores: Tensor, bound: Tensor, latents: Tensor) -> Violation | None:
    """The first of ``values`` [queries, m] that is not within ``bound`` of the scores."""
    off = (values - scores).abs() > bound * (1 + _ROUNDING) + _ROUNDING * scores.abs()
    wrong = torch.where(scores.isfinite(), off | ~values.isfinite(), values.isfinite())
    return _first(wrong.any(0), latents, "a score outside its bound")


def _first(wrong: Tensor, latents: Tensor, said: str) -> Violation | None:
    places = wrong.nonzero()[:, 0]
    return Violation(int(latents[places[0]]), said) if len(places) else None


def of_any(ranks: Ranks, found: Violation | None) -> Violation | None:
    """What the first process has found that found something; the same in all of them."""
    return next((each for each in ranks.gather(found) if each is not None), None)


def instead_of(impl: str, device: torch.device, found: Violation) -> str:
    """The implementation that is to do the scan again; the verdict on this one is marked."""
    other = _AFTER.get(impl, "torch")
    reason = f"a scan told {found.said} of latent {found.latent}"
    if impl != "torch":
        keep_verdict(impl, device, Verdict(False, reason, "scan"))
    warnings.warn(
        f"the {impl} kernels were wrong on {device_name(device)}: {reason}. The scan was discarded "
        f"and done again by {other}. Run `deltalens doctor`, and report what it says",
        KernelWarning,
        stacklevel=2,
    )
    return other
