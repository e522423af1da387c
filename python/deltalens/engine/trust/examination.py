"""Everything that can be said of a device's kernels: are they right, how fast are they."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from deltalens.engine.cost.roofs import Roofs, measured_roofs
from deltalens.engine.numerics.extension import cpu_extension, cpu_level
from deltalens.engine.trust.check import Check, Operands, Sizes
from deltalens.engine.trust.conditions import interpreted
from deltalens.engine.trust.cpu_checks import outer_checks, ranking_checks, winner_checks
from deltalens.engine.trust.implementations import missing_for_triton
from deltalens.engine.trust.kernel_checks import kernel_checks, sum_checks
from deltalens.engine.trust.rates import keep_roofs
from deltalens.engine.trust.scorer_checks import scorer_checks
from deltalens.engine.trust.timing import Timing, timings
from deltalens.engine.trust.verdicts import Verdict, keep_verdict
from deltalens.engine.trust.whole_checks import top_k_checks, upload_checks

_HALVES = (torch.float16, torch.bfloat16)
# One number; aligned; odd; rows that do not start on 16 bytes.
_ON_CUDA = (Sizes(1, 1, 1), Sizes(333, 768, 3000), Sizes(300, 1000, 777), Sizes(97, 333, 500))
_ON_CPU = (Sizes(1, 1, 1), Sizes(64, 256, 512), Sizes(97, 333, 500), Sizes(33, 1000, 130))
_INTERPRETED = (Sizes(1, 1, 1), Sizes(64, 64, 128), Sizes(33, 40, 70))
_TIMED_CPU = (Sizes(64, 768, 8192), Sizes(128, 2304, 2048), Sizes(256, 4096, 1024))
_TIMED_CUDA = (Sizes(1024, 768, 65_536), Sizes(4096, 2304, 65_536), Sizes(4096, 4096, 32_768))
_TIMED_INTERPRETED = (Sizes(8, 32, 64),)


@dataclass(frozen=True)
class Subject:
    """An implementation on a device; of the compiled kernels one level of vector instructions."""

    impl: str
    device: torch.device
    level: str = ""
    used: bool = True  # whether scans take it, at this level

    def __str__(self) -> str:
        return f"{self.impl} {self.level}".strip()


@dataclass(frozen=True)
class Finding:
    """What was found of one subject."""

    subject: Subject
    checks: list[Check]
    timings: list[Timing]
    verdict: Verdict


@dataclass(frozen=True)
class Examination:
    """What was found on a device; roofs None where none were measured."""

    device: torch.device
    findings: list[Finding]
    roofs: Roofs | None

    @property
    def wrong(self) -> list[Check]:
        """Checks that failed."""
        return [check for found in self.findings for check in found.checks if not check.ok]


def examine(
    device: torch.device, *, quick: bool, say: Callable[[str], None] = lambda _: None
) -> Examination:
    """Check every kernel that can run for ``device``, time both forms and measure roofs; verdicts
    and rates are kept. ``quick``: fewer shapes, and times only where they decide."""
    findings = []
    for subject in list(subjects(device)):
        with at_level(subject.level):
            say(f"checking {subject}")
            checks = [check for group in checks_of(subject, quick=quick) for check in group]
            timed: list[Timing] = []
            if all(check.ok for check in checks):
                say(f"timing {subject}")
                timed = list(_timings(subject, quick=quick))
            verdict = _verdict(checks, timed)
            keep_verdict(subject.impl, device, verdict)
            findings.append(Finding(subject, checks, timed, verdict))
    if quick:
        return Examination(device, findings, None)
    say("measuring roofs")
    roofs = _roofs(device, findings)
    keep_roofs(device, roofs)
    return Examination(device, findings, roofs)


def subjects(device: torch.device) -> Iterator[Subject]:
    """What can run for rows on ``device``."""
    yield Subject("torch", device)
    extension = cpu_extension() if device.type == "cpu" else None
    for level in extension.levels() if extension else []:
        yield Subject("cpp", device, level, level == cpu_level())
    if not missing_for_triton(device):
        yield Subject("triton", device)


@contextmanager
def at_level(level: str) -> Iterator[None]:
    """Let the compiled kernels use that level; none for the one they would."""
    name = "DELTALENS_CPU_LEVEL"
    before = os.environ.get(name)
    try:
        if level:
            os.environ[name] = level
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif level:
            del os.environ[name]


def checks_of(subject: Subject, *, quick: bool = False) -> Iterator[Iterator[Check]]:
    """Groups of checks, the plainest first."""
    slow = subject.impl == "triton" and interpreted()
    shapes: Sequence[Sizes] = _ON_CUDA if subject.device.type == "cuda" else _ON_CPU
    shapes = _INTERPRETED if slow else shapes[:3] if quick else shapes
    # The interpreter cannot multiply bfloat16.
    dtypes = (torch.float32, torch.float16) if slow else (torch.float32, *_HALVES)
    every = [
        Operands(subject.impl, subject.device, dtype, sizes) for sizes in shapes for dtype in dtypes
    ]
    if subject.impl == "triton":
        for given in every:
            for parts in (1,) if given.dtype == torch.float32 else (1, 3):
                yield kernel_checks(replace(given, parts=parts))
        wide = Sizes(1, 64 if slow else 4096, 1)
        for given in (Operands("triton", subject.device, dtype, wide) for dtype in dtypes[1:]):
            yield given.attempt("sums", sum_checks(given))
    for given in every:
        yield scorer_checks(given)
    yield from _of_scans(subject, slow=slow, quick=quick)


def _of_scans(subject: Subject, *, slow: bool, quick: bool) -> Iterator[Iterator[Check]]:
    few = 3000 if slow or subject.device.type == "cpu" else 1_000_000
    ranked = Operands(subject.impl, subject.device, torch.float32, Sizes(1, 1, few))
    if subject.impl == "triton":
        yield ranked.attempt("top-k", ranking_checks(ranked, "kernel", (1, 100, 4096)))
        won = replace(ranked, sizes=Sizes(5, 40, 400) if slow else Sizes(97, 333, 5000))
        yield won.attempt("winners", winner_checks(won))
    elif subject.impl == "cpp":
        yield ranked.attempt("top-k", ranking_checks(ranked, "streaming", (1, 100, 4096)))
        wide = replace(ranked, dtype=torch.float64, sizes=Sizes(300, 333, 1))
        yield wide.attempt("outer products", outer_checks(wide))
        for dtype in (torch.float32, *_HALVES):
            won = replace(ranked, dtype=dtype, sizes=Sizes(97, 333, 500))
            yield won.attempt("winners", winner_checks(won))
    on_gpu = subject.device.type == "cuda"
    sizes = Sizes(20, 24, 400) if slow else Sizes(300, 96 if quick else 256, 10_000)
    repeats, dtypes = 2, (torch.float32, torch.float16 if slow else torch.bfloat16)
    if on_gpu and not quick:
        sizes, repeats = Sizes(500, 768, 50_000), 20
    for dtype in dtypes:
        given = Operands(subject.impl, subject.device, dtype, sizes)
        yield top_k_checks(given, 20 if slow else 100, repeats)
        if on_gpu:
            yield upload_checks(replace(given, sizes=Sizes(300, 768, 100_001)))


def _timings(subject: Subject, *, quick: bool) -> Iterator[Timing]:
    """None of what is not used, nor in a hurry of what is used whatever its times."""
    on_gpu = subject.device.type == "cuda"
    if subject.impl == "torch" or not subject.used or (quick and subject.impl == "cpp"):
        return
    slow = subject.impl == "triton" and interpreted()
    shapes = _TIMED_INTERPRETED if slow else _TIMED_CUDA if on_gpu else _TIMED_CPU
    for sizes in shapes[:1] if quick else shapes:
        for dtype in (torch.float32, torch.float16 if slow else torch.bfloat16):
            yield from timings(Operands(subject.impl, subject.device, dtype, sizes))


def _verdict(checks: list[Check], timed: list[Timing]) -> Verdict:
    wrong = [check for check in checks if not check.ok]
    speed = {str(timing): round(timing.times_torch, 3) for timing in timed}
    return Verdict(not wrong, str(wrong[0]) if wrong else "", "doctor", len(checks), speed)


def _roofs(device: torch.device, findings: list[Finding]) -> Roofs:
    """Measured ones; those of Triton's kernels from the times of the quadratic form."""
    roofs = measured_roofs(device)
    timed = [timing for found in findings for timing in found.timings if timing.impl == "triton"]
    if device.type != "cuda" or not timed:
        return roofs

    def rate(form: str, dtype: str) -> float:
        same = (t for t in timed if (t.form, t.dtype) == (form, dtype))
        # The kernel goes through half of the matrix.
        return max(t.flop / 2 / t.seconds for t in same)

    return replace(
        roofs,
        kernel_fp32=rate("quadratic", "float32"),
        kernel_16bit=rate("quadratic screen", "bfloat16"),
    )
