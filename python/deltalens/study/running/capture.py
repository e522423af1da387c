"""The rows of studies that differ in their site alone, captured together and kept on disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from deltalens.lm import EncodedPair
from deltalens.lm.capture import capture_encoded
from deltalens.lm.gradients.pair_rows import Captured, pair_rows
from deltalens.lm.progress import Progress
from deltalens.ranks.ranks import Ranks
from deltalens.storage.in_order import Arrival
from deltalens.study.options import of_model
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.ranking.rank import CapturedStudy
from deltalens.study.running.row_store import shards


def capture_missing(
    sets: Sequence[Sequence[CapturedStudy]],
    missing: Sequence[Sequence[Sequence[range]]],
    batch_tokens: int,
    progress: bool,
    ranks: Ranks,
) -> list[float]:
    """Capture the shards that are ``missing`` in the studies' stores, at all sites that lack them.

    A set's studies have the same pairs. Shards of the other processes are there too when this
    returns, with the seconds that each set took this process.

    Rows go to disk pair by pair, so that memory is one batch at all sites, whatever their number.
    """
    parts = [
        (number, shard, [studies[n] for n in lacking])
        for number, (studies, of_set) in enumerate(zip(sets, missing, strict=True))
        for shard, lacking in sites_lacking(of_set, len(studies[0].study.pairs))
        if lacking
    ]
    seconds = [0.0] * len(sets)
    with Progress(progress, "pairs", sum(len(shard) for _, shard, _ in parts)) as bar:
        for number, shard, lacking in parts:
            started = time.perf_counter()
            _capture_shard(shard, lacking, batch_tokens)
            seconds[number] += time.perf_counter() - started
            bar.advance(len(shard))
    ranks.meet()
    return seconds


def sites_lacking(
    missing: Sequence[Sequence[range]], pairs: int
) -> Iterator[tuple[range, list[int]]]:
    """Every shard, and the numbers of the studies in whose ``missing`` shards it is."""
    lacking = list(map(set, missing))
    for shard in shards(pairs):
        yield shard, [number for number, of_site in enumerate(lacking) if shard in of_site]


def rehearse(
    studies: Sequence[PreparedStudy], missing: Sequence[Sequence[range]], batch_tokens: int
) -> Iterator[object]:
    """Capture what is missing, and keep nothing."""
    for shard, lacking in sites_lacking(missing, len(studies[0].pairs) if studies else 0):
        if lacking:
            captured = with_other_rows(studies[number] for number in lacking)
            yield from _arrivals(captured, _encoded(captured, shard), batch_tokens)


def with_other_rows(studies: Iterable[PreparedStudy]) -> list[PreparedStudy]:
    """What is captured: studies at one site, with several SAEs, share their rows if they can."""
    return list({study.rows_of: study for study in studies}.values())


def _encoded(studies: Sequence[PreparedStudy], shard: range) -> list[list[EncodedPair]]:
    return [[study.encoded[pair] for pair in shard] for study in studies]


def _arrivals(
    studies: Sequence[PreparedStudy], encoded: Sequence[Sequence[EncodedPair]], batch_tokens: int
) -> Iterator[Arrival[Captured]]:
    options = studies[0].options
    return capture_encoded(
        studies[0].model,
        encoded,
        [study.site for study in studies],
        loss=options.loss,
        gradients=of_model(options.gradients),
        baselines=[study.start for study in studies],
        steps=options.steps,
        batch_tokens=batch_tokens,
    )


def _capture_shard(shard: range, lacking: Sequence[CapturedStudy], batch_tokens: int) -> None:
    """Rows go to every study that shares them."""
    studies = with_other_rows(one.study for one in lacking)
    sharing: dict[Any, list[CapturedStudy]] = {study.rows_of: [] for study in studies}
    for one in lacking:
        sharing[one.study.rows_of].append(one)
    encoded = _encoded(studies, shard)
    with ExitStack() as stack:
        fillers = [
            [stack.enter_context(one.store.filling(shard)) for one in some]
            for some in sharing.values()
        ]
        for arrival in _arrivals(studies, encoded, batch_tokens):
            for of_site, rows in zip(fillers, pair_rows(arrival), strict=True):
                for filler in of_site:
                    filler.put(arrival.index, rows)
