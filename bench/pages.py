"""Parts of documentation pages that programs write."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, start: str, end: str, content: str) -> None:
    """Replace what stands between the lines ``start`` and ``end``, which stay."""
    head, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(f"{page.name} has no {start if not found else end}")
    content = content.strip("\n")
    page.write_text(f"{head}{start}\n{content}\n{end}{tail}", encoding="utf-8")
