"""Logs to which several processes append, each to a part of its own beside the log."""

from __future__ import annotations

from pathlib import Path

from deltalens.storage.line_log import append_lines, drop_cut_line


def part_path(path: Path, number: int | None) -> Path:
    """The part ``number`` of a log: ``samples.part-3.jsonl``; of a process alone the log itself."""
    return path if number is None else path.with_name(f"{path.stem}.part-{number}{path.suffix}")


def fold_parts(path: Path) -> None:
    """Append what the parts of a log hold to the log itself, while nobody appends to them.

    A line that was cut is left out. Cut in the middle, lines of one part may be there twice.
    """
    for part in parts_of(path):
        drop_cut_line(part)
        append_lines(path, part.read_text(encoding="utf-8"))
        part.unlink()


def parts_of(path: Path) -> list[Path]:
    """The parts there are, by number."""
    found = path.parent.glob(f"{path.stem}.part-*{path.suffix}")
    names = {part: part.name.removesuffix(path.suffix) for part in found}
    return sorted(names, key=lambda part: int(names[part].rpartition("-")[2]))
