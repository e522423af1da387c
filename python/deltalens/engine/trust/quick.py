"""A verdict that is made where one is needed and none is kept: the kernels that most scans take.

It takes up to 15 seconds with compilation, once for a device and its versions. What is not checked
here `deltalens doctor` checks, and every scan is watched (:mod:`deltalens.engine.trust.guard`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.trust.check import Check, Operands, Sizes
from deltalens.engine.trust.conditions import device_name, interpreted
from deltalens.engine.trust.cpu_checks import ranking_checks
from deltalens.engine.trust.scorer_checks import moment_checks, token_checks
from deltalens.engine.trust.timing import Timing, timings
from deltalens.engine.trust.verdicts import Verdict, keep_first_verdict, kept_verdict

SWITCH = "DELTALENS_VERDICT"
_SECONDS = 10.0  # after which nothing more is begun
# Alike in all that kernels are compiled for.
_CHECKED, _TIMED = Sizes(512, 768, 1000), Sizes(1024, 768, 16_384)
_INTERPRETED = Sizes(16, 32, 64)


def verdict_on(impl: str, device: torch.device) -> Verdict | None:
    """The verdict that is kept, otherwise one made now; None where DELTALENS_VERDICT=0 says that
    none is to be made."""
    kept = kept_verdict(impl, device)
    if kept is not None or os.environ.get(SWITCH) == "0":
        return kept
    print(
        f"deltalens: checking the {impl} kernels on {device_name(device)}, once; {SWITCH}=0 leaves "
        "it out",
        file=sys.stderr,
    )
    return keep_first_verdict(impl, device, _quick_verdict(impl, device))


def _quick_verdict(impl: str, device: torch.device) -> Verdict:
    deadline = time.monotonic() + _SECONDS
    checks, speed = 0, {}
    for found in _findings(impl, device):
        if isinstance(found, Timing):
            speed[str(found)] = round(found.times_torch, 3)
        else:
            checks += 1
            if not found.ok:
                return Verdict(False, str(found), "quick", checks)
        if time.monotonic() > deadline:
            break
    return Verdict(True, "", "quick", checks, speed)


def _findings(impl: str, device: torch.device) -> Iterator[Check | Timing]:
    """Checks and times, those that matter most first."""
    slow = interpreted()
    checked, timed = (_INTERPRETED, _INTERPRETED) if slow else (_CHECKED, _TIMED)
    ranked = Operands(impl, device, torch.float32, Sizes(1, 1, 3000))
    yield from ranked.attempt("top-k", ranking_checks(ranked, "kernel", (100,)))
    for dtype in (torch.float16 if slow else torch.bfloat16, torch.float32):
        given = Operands(impl, device, dtype, checked)
        for form in ("token", "quadratic"):
            yield from given.attempt(form, _checks(given, form))
            yield from timings(replace(given, sizes=timed), 1 if slow else 3, (form,))


def _checks(given: Operands, form: str) -> Iterator[Check]:
    with exact_matmul():
        if form == "token":
            yield from token_checks(given, ("sum",))
        else:
            yield from moment_checks(given)
