"""Verdicts on kernels, kept beside other files that can be made again.

A verdict holds for its conditions: another driver, another version or changed kernels have none.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from deltalens.engine.trust.conditions import conditions, digest
from deltalens.errors import InputError
from deltalens.storage.atomic import complete_file
from deltalens.storage.cache import cache_directory


@dataclass(frozen=True)
class Verdict:
    """Whether an implementation's kernels are right on a device.

    reason: what was wrong, empty where nothing was; by: "doctor" (every check), "quick" (the most
    important ones) or "scan" (a scan found them wrong); speed: by form and dtype, how many times as
    fast as torch.
    """

    good: bool
    reason: str
    by: str
    checks: int = 0
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def faster(self) -> bool:
        """Whether the kernels were mostly faster than torch, by the geometric mean."""
        return math.prod(self.speed.values()) > 1


_known: dict[Path, Verdict] = {}  # also what could not be written


def kept_verdict(impl: str, device: torch.device | str) -> Verdict | None:
    """The verdict that holds here, None where there is none or its file is damaged."""
    path = _path(impl, device)
    if path not in _known:
        found = _read(path)
        if found is None:
            return None
        _known[path] = found
    return _known[path]


def keep_verdict(impl: str, device: torch.device | str, verdict: Verdict) -> None:
    """Keep it in place of any other, for this process alone where the folder cannot be written."""
    path = _path(impl, device)
    _known[path] = verdict
    with suppress(InputError), complete_file(path) as temporary:
        temporary.write_text(_text(impl, device, verdict), encoding="utf-8")


def keep_first_verdict(impl: str, device: torch.device | str, verdict: Verdict) -> Verdict:
    """Keep it unless another process was sooner; the one that holds from now on in all of them."""
    path = _path(impl, device)
    with suppress(InputError), complete_file(path, first=True) as temporary:
        temporary.write_text(_text(impl, device, verdict), encoding="utf-8")
    found = _read(path)
    if found is None:
        keep_verdict(impl, device, verdict)
        return verdict
    _known[path] = found
    return found


def _path(impl: str, device: torch.device | str) -> Path:
    name = f"{impl}-{digest(conditions(impl, device))}.json"
    return cache_directory() / "verdicts" / name


def _text(impl: str, device: torch.device | str, verdict: Verdict) -> str:
    document = {"conditions": conditions(impl, device), **asdict(verdict)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> Verdict | None:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        return Verdict(
            good=_of_type(document["good"], bool),
            reason=_of_type(document["reason"], str),
            by=_of_type(document["by"], str),
            checks=_of_type(document["checks"], int),
            speed={str(name): float(times) for name, times in document["speed"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
