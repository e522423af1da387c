"""The rows of studies that differ in their site alone, captured together and kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from deltalens.lm.capture import capture_encoded
from deltalens.lm.gradients.passes import pair_rows
from deltalens.lm.progress import Progress
from deltalens.lm.sites import Site
from deltalens.ranks.ranks import Ranks
from deltalens.study.ranking.rank import CapturedStudy
from deltalens.study.running.row_store import shards


def capture_missing(
    sets: Sequence[Sequence[CapturedStudy]], batch_tokens: int, progress: bool, ranks: Ranks
) -> list[float]:
    """Capture what is missing in the studies' stores: a shard of pairs at all sites that lack it.

    A set's studies have the same pairs. Shards of all sets are dealt out to the processes; all are
    there when this returns, with the seconds that each set took this process.

    Rows go to disk pair by pair, so that memory is one batch at all sites, whatever their number.
    """
    pieces = [
        (number, shard)
        for number, studies in enumerate(sets)
        for shard in shards(len(studies[0].study.pairs))
    ]
    todo = ranks.share(pieces, lambda piece: not _lacking(sets[piece[0]], piece[1]))
    seconds = [0.0] * len(sets)
    with Progress(progress, "pairs", sum(len(shard) for _, shard in todo)) as bar:
        for number, shard in todo:
            started = time.perf_counter()
            _capture_shard(shard, _lacking(sets[number], shard), batch_tokens)
            seconds[number] += time.perf_counter() - started
            bar.advance(len(shard))
    ranks.meet()
    return seconds


def _lacking(studies: Sequence[CapturedStudy], shard: range) -> list[CapturedStudy]:
    return [one for one in studies if not one.store.holds(shard)]


def _capture_shard(shard: range, lacking: Sequence[CapturedStudy], batch_tokens: int) -> None:
    """Rows of a site go to every study there."""
    at_site: dict[Site, list[CapturedStudy]] = {}
    for one in lacking:
        at_site.setdefault(one.study.site, []).append(one)
    studies = [some[0].study for some in at_site.values()]
    options = studies[0].options
    encoded = [[study.encoded[pair] for pair in shard] for study in studies]
    with ExitStack() as stack:
        fillers = [
            [
                stack.enter_context(one.store.filling(shard, [sum(p.counted) for p in of_site]))
                for one in some
            ]
            for some, of_site in zip(at_site.values(), encoded, strict=True)
        ]
        for arrival in capture_encoded(
            studies[0].model,
            encoded,
            list(at_site),
            loss=options.loss,
            gradients=options.gradients,
            baselines=[study.baseline.mean for study in studies],
            steps=options.steps,
            batch_tokens=batch_tokens,
        ):
            for of_site, rows in zip(fillers, pair_rows(arrival), strict=True):
                for filler in of_site:
                    filler.put(arrival.index, rows)
