"""The rows of studies that differ in their site alone, captured together and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from deltalens.lm.capture import capture_encoded
from deltalens.lm.gradients.passes import pair_rows
from deltalens.lm.progress import Progress
from deltalens.ranks.ranks import Ranks
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.running.row_store import RowStore, shards


def capture_missing(
    studies: Sequence[PreparedStudy],
    stores: Sequence[RowStore],
    batch_tokens: int,
    progress: bool,
    ranks: Ranks,
) -> None:
    """Capture what is missing in the studies' stores: a shard of pairs at all sites that lack it.

    Shards are dealt out to the processes; all are there when this returns.

    Rows go to disk pair by pair, so that memory is one batch at all sites, whatever their number.
    """
    todo = ranks.share(
        shards(len(studies[0].pairs)), lambda shard: all(store.holds(shard) for store in stores)
    )
    with Progress(progress, "pairs", sum(map(len, todo))) as bar:
        for shard in todo:
            lacking = [number for number, store in enumerate(stores) if not store.holds(shard)]
            _capture_shard(
                shard,
                [studies[number] for number in lacking],
                [stores[number] for number in lacking],
                batch_tokens,
            )
            bar.advance(len(shard))
    ranks.meet()


def _capture_shard(
    shard: range, studies: Sequence[PreparedStudy], stores: Sequence[RowStore], batch_tokens: int
) -> None:
    options = studies[0].options
    encoded = [[study.encoded[pair] for pair in shard] for study in studies]
    with ExitStack() as stack:
        fillers = [
            stack.enter_context(store.filling(shard, [sum(pair.counted) for pair in of_site]))
            for store, of_site in zip(stores, encoded, strict=True)
        ]
        for arrival in capture_encoded(
            studies[0].model,
            encoded,
            [study.site for study in studies],
            loss=options.loss,
            gradients=options.gradients,
            baselines=[study.baseline.mean for study in studies],
            steps=options.steps,
            batch_tokens=batch_tokens,
        ):
            for filler, rows in zip(fillers, pair_rows(arrival), strict=True):
                filler.put(arrival.index, rows)
