"""A finished sweep written as a directory of Inspect logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.judge.scorers.loading import check_installed
from deltalens.pairs.targets import Targets
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.report.eval_logs.archive import write_log
from deltalens.report.eval_logs.log import Source, condition_log
from deltalens.report.eval_logs.sampled import Sampled
from deltalens.storage.atomic import complete_directory
from deltalens.storage.lock import lock_beside
from deltalens.trials.log import completions_path
from deltalens.trials.result import Arm, SweepResult
from deltalens.trials.setup.settings import read_prompts, read_settings


def write_inspect_logs(
    run: str | Path, directory: str | Path, *, targets: Targets | None = None
) -> int:
    """Write the sweep in the run directory ``run`` as Inspect's ``.eval`` logs.

    One for each direction and condition, with a sample for each completion; how many there are is
    returned (docs/inspect.md). targets: what scorers are to look for in the answers.

    ``directory`` must not exist; it appears complete or not at all. The run is only read, and the
    same sweep gives the same bytes. Needs ``inspect_ai`` (``pip install deltalens[inspect]``).
    Raises :class:`InputError` for a sweep that is not finished or is damaged.
    """
    run, directory = Path(run), Path(directory)
    check_installed("format inspect")
    result, prompts = SweepResult.load(run), read_prompts(run)
    targets_of = (lambda prompt: "") if targets is None else targets.of
    source = Source(result, prompts, read_settings(run), targets_of)
    count = 0
    with alone(lock_beside(directory), ALONE), _new(directory) as unfinished:
        for arm in result.arms.values():
            for log in _logs(run, source, arm):
                write_log(log, unfinished / _name(log))
                count += 1
    return count


@contextmanager
def _new(directory: Path) -> Iterator[Path]:
    if directory.exists():
        raise InputError(f"{directory} exists; remove it or choose another directory")
    with complete_directory(directory) as unfinished:
        yield unfinished


def _logs(run: Path, source: Source, arm: Arm) -> Iterator[Any]:
    sampled, created = Sampled.read(run, source.result, arm), _created(run, arm)
    for condition, completions in sampled.by_condition():
        yield condition_log(source, sampled, condition, completions, created)


def _created(run: Path, arm: Arm) -> str:
    """When the last completion was written."""
    path = completions_path(run, arm.direction)
    if not path.exists():
        raise InputError(f"{path} is not there; copy it back, or steer again")
    seconds = int(path.stat().st_mtime)
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _name(log: Any) -> str:
    """As Inspect names its own: time, task and the task's id."""
    created = log.eval.created.replace(":", "-")
    return f"{created}_steer-{log.eval.task_args['direction']}_{log.eval.task_id}.eval"
