"""This device's measured rates, kept like verdicts."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.trust.conditions import device_conditions, digest
from deltalens.errors import InputError
from deltalens.storage.atomic import complete_file
from deltalens.storage.cache import cache_directory


def kept_roofs(device: torch.device | str) -> Roofs | None:
    """Rates that were measured under these conditions; None where there are none."""
    try:
        document: Any = json.loads(_path(device).read_text(encoding="utf-8"))
        return _roofs(document["roofs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
