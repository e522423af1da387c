"""This device's measured rates, kept like verdicts."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from deltalens.engine.cost.roofs import Roofs, assumed_roofs, measured_roofs
from deltalens.engine.trust.conditions import device_conditions, digest
from deltalens.errors import InputError
from deltalens.storage.atomic import complete_file
from deltalens.storage.cache import cache_directory

_measured: dict[Path, Roofs] = {}  # by this process, also what could not be written


def kept_roofs(device: torch.device | str) -> Roofs | None:
    """Rates that were measured under these conditions; None where there are none."""
    path = _path(device)
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        return _roofs(document["roofs"])
    except (OSError, ValueError, KeyError, TypeError):
        return _measured.get(path)


def known_roofs(device: torch.device | str) -> Roofs:
    """Rates that were measured here, otherwise those typical of the kind of device."""
    return kept_roofs(device) or assumed_roofs(device)


def measure_once(device: torch.device | str) -> bool:
    """Measure and keep a CPU's rates, where there are none and ``DELTALENS_VERDICT`` is not 0;
    whether it did. About a second."""
    if torch.device(device).type != "cpu" or os.environ.get("DELTALENS_VERDICT") == "0":
        return False
    if kept_roofs(device) is not None:
        return False
    print("deltalens: measuring this processor's rates, once", file=sys.stderr)
    measure(device)
    return True


def measure(device: torch.device | str) -> Roofs:
    """Measured rates, which are kept; for this process alone where the folder cannot be written."""
    roofs = _measured[_path(device)] = measured_roofs(device)
    keep_roofs(device, roofs)
    return roofs


def keep_roofs(device: torch.device | str, roofs: Roofs) -> None:
    """Keep measured rates; nowhere when the folder cannot be written."""
    document = {"conditions": device_conditions(device), "roofs": asdict(roofs)}
    with suppress(InputError, OSError), complete_file(_path(device)) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _path(device: torch.device | str) -> Path:
    return cache_directory() / "rates" / f"{digest(device_conditions(device))}.json"


def _roofs(document: dict[str, Any]) -> Roofs:
    kinds = {"str": str, "float": float, "bool": bool}
    return Roofs(
        **{each.name: kinds[str(each.type)](document[each.name]) for each in fields(Roofs)}
    )
