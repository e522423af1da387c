"""Collects examples and ends itself with SIGKILL at the given call of a function."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import deltalens
import deltalens.examples.tiles as collect
from helpers.examples_oracle import KEPT
from helpers.tiny_study import SITE, make_model, make_tokenizer


def run(folder: Path, out: Path, **changes: object) -> dict:
    return deltalens.collect_examples(
        make_model(),
        make_tokenizer(),
        deltalens.read_texts(folder / "texts.txt"),
        deltalens.load_sae(folder / "sae"),
        out,
        **{"site": SITE, "context": 8, "save_seconds": 0, **KEPT, **changes},
    )


if __name__ == "__main__":
    name, count = sys.argv[2], int(sys.argv[3])
    owner = collect.Collector if name == "add" else os
    real, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, dying)
    folder = Path(sys.argv[1])
    run(folder, folder / "cut")
