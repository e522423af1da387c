"""Whether two run directories hold the same study, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_OF_THE_MOMENT = ("timings", "created", "command")


def run_content(directory: Path) -> dict[str, Any]:
    """Every file's bytes but those of configurations, which name the directory; of the metadata
    everything but times and the command line."""
    found: dict[str, Any] = {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and not path.match("config*.yaml")
    }
    metadata = json.loads(found.pop("metadata.json"))
    kept = {name: value for name, value in metadata.items() if name not in _OF_THE_MOMENT}
    return {**found, "metadata": kept}
