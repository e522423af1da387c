"""Makes the small survey, notes what it does, and kills itself at a point of it; and goes on."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from deltalens.study import Attribution
from helpers.tiny_survey import decoders, make_survey

capture_module = importlib.import_module("deltalens.study.running.capture")
resample_module = importlib.import_module("deltalens.engine.resampling.resample")
row_store_module = importlib.import_module("deltalens.study.running.row_store")
sums_module = importlib.import_module("deltalens.engine.resampling.tile_sums")
survey_module = importlib.import_module("deltalens.study.survey.survey")


class Events:
    """Counts what happens, and ends the process without a word when it is time."""

    def __init__(self, point: str, at: int) -> None:
        self._point, self._at = point, at

    def note(self, point: str) -> None:
        if point == self._point:
            self._at -= 1
            if not self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def log(directory: Path, line: str) -> None:
    with directory.with_suffix(".log").open("a") as file:
        file.write(line + "\n")


def main(directory: Path, point: str = "", at: int = 0) -> None:
    torch.set_num_threads(1)
    row_store_module.SHARD_PAIRS = 4
    sums_module._MOST_SUMS = 4096  # a few tiles
    events = Events(point, at)
    captured, arrivals = capture_module._capture_shard, capture_module.pair_rows
    saved, written = Attribution.save, survey_module.write_summary

    def capture_shard(shard: range, lacking: Any, *rest: Any) -> None:
        captured(shard, lacking, *rest)
        events.note("captured")
        behaviour = lacking[0].work.relative_to(directory).parts[0]
        log(directory, f"captured {behaviour} {len(lacking)} {shard.start}")

    def pair_rows(arrival: Any) -> Any:
        events.note("pair")
        return arrivals(arrival)

    def save(self: Attribution, run: Path) -> None:
        write_text = attribution_module.write_text

        def note_last(path: Path, text: str) -> None:
            if path.name == "metadata.json":
                events.note("half saved")
            write_text(path, text)

        attribution_module.write_text = note_last
        saved(self, run)
        attribution_module.write_text = write_text
        log(directory, f"saved {run.relative_to(directory)}")
        events.note("saved")

    def write_summary(found: Any) -> None:
        events.note("summary")
        written(found)

    add = resample_module._Pass.add

    def add_tile(self: Any, tile: Any) -> None:
        events.note("tile")
        add(self, tile)

    attribution_module = importlib.import_module("deltalens.study.attribution")
    capture_module._capture_shard, capture_module.pair_rows = capture_shard, pair_rows
    Attribution.save, resample_module._Pass.add = save, add_tile  # type: ignore[method-assign]
    survey_module.write_summary = write_summary
    make_survey(directory, decoders=decoders(2000))


def in_a_child(*given: Any) -> int:
    """How a process ended that makes the survey, negative a signal; modules are loaded once."""
    child = os.fork()
    if not child:
        main(*given)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    root, *points = sys.argv[1:]
    for name in points:
        point, _, at = name.partition("-")
        print(name, in_a_child(Path(root) / name, point, int(at)), in_a_child(Path(root) / name))
    print("whole", in_a_child(Path(root) / "whole"))
