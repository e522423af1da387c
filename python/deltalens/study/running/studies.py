"""Prepared studies of sets of pairs at one or several sites, run to their results."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.errors import InputError, Unfinished
from deltalens.ranks.ranks import Ranks
from deltalens.study.attribution import Attribution
from deltalens.study.ranking.rank import CapturedStudy, rank
from deltalens.study.run import differing, discard, is_complete, own_room, work_directory
from deltalens.study.running.capture import capture_missing, rehearse
from deltalens.study.running.cost import missing_shards, study_work
from deltalens.study.running.finish import Running, StudyRun, finish
from deltalens.study.running.named import named
from deltalens.study.running.row_store import RowStore, shards

log = logging.getLogger(__name__)


def run_studies(sets: Sequence[Sequence[StudyRun]], running: Running) -> list[list[Attribution]]:
    """The studies' results, complete ones as their directories hold them.

    A set's studies are of the same pairs: all that are not complete are captured together. Then
    those with one decoder at one site are ranked together, whatever their sets, and each is saved
    as soon as it is there. A study that fails keeps none of the others from its result; the error,
    which names it, comes at the end. Several processes capture, scan and return together;
    the first of them saves.
    """
    runs = list(chain(*sets))
    _check_one_study(runs, running.ranks)
    complete = running.ranks.from_first(lambda: list(map(_is_complete, runs)))
    results: dict[StudyRun, Attribution] = {}
    for run, done in zip(runs, complete, strict=True):
        if done and run.directory is not None:
            results[run] = Attribution.load(run.directory)
            if running.ranks.first:
                discard(run.directory)  # rows of a run that was cut between saving and this
    todo = [left for one in sets if (left := [run for run in one if run not in results])]
    missing = _missing(todo, running.ranks)
    with begun(
        log,
        _work(todo, missing, running),
        lambda: chain.from_iterable(_rehearsals(todo, missing, running)),
    ):
        results.update(_run(todo, missing, running))
    return [[results[run] for run in one] for one in sets]


def _check_one_study(runs: Sequence[StudyRun], ranks: Ranks) -> None:
    own = [run.study.settings for run in runs]
    for here, first in zip(own, ranks.from_first(lambda: own), strict=True):
        if here != first:
            raise InputError(
                f"process {ranks.rank} has another study than the first: {differing(first, here)}; "
                "start all of them with the same command and the same files"
            )


def _is_complete(run: StudyRun) -> bool:
    return run.directory is not None and is_complete(run.directory, run.study.settings)


def _missing(sets: Sequence[Sequence[StudyRun]], ranks: Ranks) -> list[list[list[range]]]:
    """The shards of pairs that this process is to capture for each study of each set."""
    lacking = [[missing_shards(run.study, run.directory) for run in one] for one in sets]
    every = [
        (number, shard)
        for number, one in enumerate(sets)
        for shard in shards(len(one[0].study.pairs))
    ]
    own = ranks.share(
        every, lambda piece: not any(piece[1] in of_study for of_study in lacking[piece[0]])
    )
    return [
        [[shard for shard in of_study if (number, shard) in own] for of_study in of_set]
        for number, of_set in enumerate(lacking)
    ]


def _work(
    sets: Sequence[Sequence[StudyRun]],
    missing: Sequence[Sequence[Sequence[range]]],
    running: Running,
) -> Work:
    works = [
        study_work([run.study for run in one], of_set, running.check, running.flips)
        for one, of_set in zip(sets, missing, strict=True)
    ]
    return Work(
        sum((work.cost for work in works), Cost()),
        tokens=sum(work.tokens for work in works),
        later=sum(work.later for work in works),
    )


def _rehearsals(
    sets: Sequence[Sequence[StudyRun]],
    missing: Sequence[Sequence[Sequence[range]]],
    running: Running,
) -> Iterator[Iterator[object]]:
    for one, of_set in zip(sets, missing, strict=True):
        yield rehearse([run.study for run in one], of_set, running.batch_tokens)


@dataclass(frozen=True)
class _Opened:
    """A study at work, what its rows took to capture, and with how many sites."""

    run: StudyRun
    captured: CapturedStudy
    sites: int


def _run(
    sets: Sequence[Sequence[StudyRun]],
    missing: Sequence[Sequence[Sequence[range]]],
    running: Running,
) -> dict[StudyRun, Attribution]:
    if not sets:
        return {}
    with ExitStack() as stack:
        opened = [[_opened(stack, run, len(one), running.ranks) for run in one] for one in sets]
        seconds = capture_missing(
            [[each.captured for each in one] for one in opened],
            missing,
            running.batch_tokens,
            running.progress,
            running.ranks,
        )
        capture_s = {
            each.run: of_set for one, of_set in zip(opened, seconds, strict=True) for each in one
        }
        results: dict[StudyRun, Attribution] = {}
        failures: list[InputError] = []
        for group in _by_decoder(chain(*opened)):
            for run, found in _finished(group, running, capture_s):
                if isinstance(found, Attribution):
                    results[run] = found
                elif run.directory is None:
                    raise found
                else:
                    failures.append(found)
                useless = not isinstance(found, Unfinished)
                if run.directory is not None and running.ranks.first and useless:
                    discard(run.directory)
        if failures:  # one that keeps the rows of its own study, before others
            raise min(failures, key=lambda error: not isinstance(error, Unfinished))
    return results


def _opened(stack: ExitStack, run: StudyRun, sites: int, ranks: Ranks) -> _Opened:
    study = run.study
    work = stack.enter_context(work_directory(run.directory, study.settings, ranks))
    store = RowStore(work, study.encoded, study.site.d_model)
    return _Opened(run, CapturedStudy(study, store, work), sites)


def _by_decoder(opened: Iterable[_Opened]) -> list[list[_Opened]]:
    """Those that are ranked in one scan."""
    groups: dict[Any, list[_Opened]] = {}
    for each in opened:
        study = each.run.study
        groups.setdefault((id(study.decoder), study.site), []).append(each)
    return list(groups.values())


def _finished(
    group: Sequence[_Opened], running: Running, capture_s: dict[StudyRun, float]
) -> Iterator[tuple[StudyRun, Attribution | InputError]]:
    """Of a decoder's studies the results, or why there is none."""
    started, ranks = time.perf_counter(), running.ranks
    label = group[0].run.study.site.name if group[0].run.label else None
    try:
        with named(label), ExitStack() as stack:
            at_work = [_with_room(stack, each.captured, ranks) for each in group]
            ranked = rank(at_work, running.flips, running.progress, ranks)
    except InputError as error:
        yield from ((each.run, error) for each in group)
        return
    scanned = {"scan_s": time.perf_counter() - started, "scanned_studies": len(group)}
    for each, of_study in zip(group, ranked, strict=True):
        captured = {"capture_s": capture_s[each.run], "captured_sites": each.sites}
        try:
            with named(each.run.label):
                found = ranks.from_first(
                    partial(finish, each.run, of_study, running, {**captured, **scanned})
                )
        except InputError as error:
            yield each.run, error
        else:
            yield each.run, found


def _with_room(stack: ExitStack, one: CapturedStudy, ranks: Ranks) -> CapturedStudy:
    return CapturedStudy(one.study, one.store, stack.enter_context(own_room(one.work, ranks)))
