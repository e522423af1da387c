"""What an examination found, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from deltalens.cli.doctor.rates import rates_line
from deltalens.cli.output import print_line, print_table
from deltalens.engine.trust.examination import Examination, Finding


def document(facts: dict[str, str], found: Sequence[Examination]) -> dict[str, Any]:
    """For --json."""
    return {
        "ok": not any(each.wrong for each in found),
        "installation": facts,
        "devices": [
            {
                "device": str(each.device),
                "roofs": None if each.roofs is None else asdict(each.roofs),
                "implementations": [_of_finding(finding) for finding in each.findings],
            }
            for each in found
        ],
    }


def _of_finding(found: Finding) -> dict[str, Any]:
    return {
        "impl": found.subject.impl,
        "level": found.subject.level or None,
        "used": found.subject.used,
        "verdict": asdict(found.verdict),
        "wrong": [asdict(check) for check in found.checks if not check.ok],
        "timings": [
            {**asdict(timing), "times_torch": timing.times_torch} for timing in found.timings
        ],
    }


def show(facts: dict[str, str], found: Sequence[Examination]) -> None:
    """Tables, then one line for every failure."""
    width = max(map(len, facts))
    for name, text in facts.items():
        print_line(f"{name:>{width}}  {text}")
    for each in found:
        _show_checks(each)
        _show_timings(each)
        _show_roofs(each)
    wrong = [(each.device, check) for each in found for check in each.wrong]
    for device, check in wrong:
        print_line(
            f"WRONG on {device}: {check}. torch is used instead; report this line with the ones "
            "at the top"
        )
    if not wrong:
        print_line("every kernel is right")


def _show_checks(found: Examination) -> None:
    rows = [
        [
            str(each.subject) + (" ←" if each.subject.used else ""),
            str(len(each.checks)),
            str(sum(not check.ok for check in each.checks)),
            f"{max(check.error / check.limit for check in each.checks if check.limit):.2f}",
            _decision(each),
        ]
        for each in found.findings
    ]
    print_table(
        f"{found.device}: kernels against fp64",
        ("implementation", "checks", "wrong", "of the limit", "auto"),
        rows,
        left=("implementation", "auto"),
    )


def _decision(found: Finding) -> str:
    """What "auto" makes of it."""
    if not found.verdict.good:
        return "wrong: not taken"
    if found.subject.impl == "triton" and not found.verdict.faster:
        return "slower: not taken"
    return "may be taken" if found.subject.used else "not this level"


def _show_timings(found: Examination) -> None:
    timed = [timing for each in found.findings for timing in each.timings]
    if timed:
        print_table(
            f"{found.device}: seconds of a scan, and times as fast as torch",
            ("kernel", "tokens × d × latents", "seconds", "GFLOP/s", "× torch"),
            [
                [
                    f"{timing.impl} {timing.form} {timing.dtype}",
                    f"{timing.tokens}×{timing.d_model}×{timing.n_latents}",
                    f"{timing.seconds:.4f}",
                    f"{timing.flop / timing.seconds / 1e9:,.0f}",
                    f"{timing.times_torch:.2f}",
                ]
                for timing in timed
            ],
            left=("kernel",),
        )


def _show_roofs(found: Examination) -> None:
    if found.roofs is not None:
        print_line(rates_line(found.roofs))
