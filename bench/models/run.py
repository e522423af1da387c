"""Tries models of every kind and writes bench/results/models.csv: python bench/models/run.py."""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "models.csv"
COLUMNS = [
    *("kind", "name", "transformers", "class", "outcome"),
    *("attribute", "attribute_error", "sample", "ablate", "ablate_error", "note"),
]
GROUPS = ("families", "adapters", "loaders", "quantised", "tokenizer_kinds")
SECONDS = 60  # for one model

Row = dict[str, str]
Key = tuple[str, str, str]


def main() -> None:
    """Try what is asked for and keep the other rows of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=GROUPS, help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--missing", action="store_true", help="only what the file lacks")
    parser.add_argument("--smollm2", type=Path, help="a GGUF file of SmolLM2, tried by hand")
    args = parser.parse_args()
    _quiet()
    rows = read_rows()
    version = _transformers_version()
    for kind, name, build in _subjects(args):
        key = (kind, name, version)
        if args.only in name and not (args.missing and key in rows):
            started = time.perf_counter()
            rows[key] = {"kind": kind, "name": name, "transformers": version, **_tried(build)}
            write_rows(rows)
            print(f"{time.perf_counter() - started:5.1f} s", _summary(rows[key]), flush=True)


def _subjects(args: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    for group in args.groups:
        yield from importlib.import_module(group).subjects()
    if args.smollm2 is not None:
        yield importlib.import_module("loaders").smollm2(args.smollm2)


def _tried(build: Callable[[], Any]) -> Row:
    from families import NotBuiltError
    from trial import described

    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        subject = build()
        return _row(subject, subject.tried())
    except NotBuiltError as error:
        return {"outcome": "not built", "note": str(error)}
    except Exception as error:  # of this harness, or the time was up
        return {"outcome": "crashed", "note": described(error)}
    finally:
        signal.alarm(0)


def _row(subject: Any, found: dict[str, Any]) -> Row:
    lines = [f"{name}: {one.line}" for name, one in found.items() if one.line]
    errors = {name: one.error for name, one in found.items() if one.error is not None}
    return {
        "class": type(subject.model).__name__,
        "outcome": _worst(list(found.values())),
        **{name: one.word for name, one in found.items()},
        **{f"{name}_error": f"{error:.1e}" for name, error in errors.items()},
        "note": "; ".join([*subject.notes, *_once(lines)]),
    }


def _once(lines: list[str]) -> list[str]:
    """Lines that say the same of every operation, said once."""
    said = {line.partition(": ")[2] for line in lines}
    return sorted(said) if len(lines) == 3 and len(said) == 1 else lines


def _worst(found: list[Any]) -> str:
    words = {one.word for one in found}
    return next(word for word in ("wrong", "crashed", "refused", "equal") if word in words)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"not done in {SECONDS} seconds")


def read_rows() -> dict[Key, Row]:
    """The file's rows by kind, name and version of transformers."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return {(r["kind"], r["name"], r["transformers"]): r for r in csv.DictReader(file)}


def write_rows(rows: dict[Key, Row]) -> None:
    """The file, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, RESULTS)


def _summary(row: Row) -> str:
    errors = [row.get(f"{name}_error", "") for name in ("attribute", "ablate")]
    return f"{row['outcome']:9} {row['name']:30} {' '.join(errors)} {row.get('note', '')[:150]}"


def _transformers_version() -> str:
    import transformers

    return str(transformers.__version__)


def _quiet() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
