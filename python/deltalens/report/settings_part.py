"""Settings and provenance as titled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalens.report.evidence import Evidence
from deltalens.report.text import readable

_VALUE = 2000  # characters


def settings_document(evidence: Evidence) -> list[dict[str, Any]]:
    """Every recorded setting: the attribution's, the examples' and the sweep's."""
    parts = [_titled("Study", evidence.attribution.metadata)]
    if evidence.examples_summary:
        parts.append(_titled("Examples", evidence.examples_summary))
    if evidence.steering is not None:
        parts.append(_titled("Steering", evidence.steering.result.settings))
    return parts


def _titled(title: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"title": title, "rows": list(map(list, _flat("", settings)))}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    else:
        yield readable(prefix, 200), readable(_plain(value), _VALUE)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return "–" if value is None else str(value)
