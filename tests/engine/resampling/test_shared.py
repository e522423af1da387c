"""Several scans of one decoder at once: what each finds by itself, from rows that are read once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace
from threading import Lock

import pytest
import torch

from deltalens.engine import CrossMoment
from deltalens.engine import decoder as decoder_module
from deltalens.engine.decoder import Reader, TensorDecoder
from deltalens.engine.problem import moment_problem
from deltalens.engine.resampling.resample import (
    Resampling,
    Reweightings,
    resample,
    resample_together,
)
from deltalens.engine.resampling.shared import shared_reads
from deltalens.engine.resampling.tile_sums import TileSums, in_step
from deltalens.engine.scan import Search, top_latents, top_latents_together
from deltalens.engine.topk.ranking import Ranking

WIDTH = 32


class Paged:
    """A decoder that notes what is read, fetched and dropped."""

    def __init__(self, W_dec: torch.Tensor) -> None:
        self._W_dec = W_dec
        self.n_latents, self.d_model = W_dec.shape
        self.dtype = W_dec.dtype
        self.reads: Counter[int] = Counter()
        self.held: set[int] = set()
        self._lock = Lock()

    def rows(self, start: int, stop: int) -> torch.Tensor:
        with self._lock:
            self.reads.update(range(start, stop))
            self.held |= set(range(start, stop))
        return self._W_dec[start:stop]

    def reader(self) -> Reader:
        return self.rows

    def prefetch(self, start: int, stop: int) -> None:
        pass

    def release(self, start: int, stop: int) -> None:
        with self._lock:
            self.held -= set(range(start, stop))


def matrix(latents: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(latents, WIDTH, generator=draw).to(dtype)


@pytest.mark.parametrize("seed", range(20))
def test_readers_in_step_get_their_rows_and_each_is_read_once(monkeypatch, seed):
    monkeypatch.setattr(decoder_module, "READ_BYTES", 1)
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 1)
    draw = random.Random(seed)
    W_dec = matrix(draw.randrange(50, 400))
    decoder = Paged(W_dec)
    sizes = [draw.randrange(1, 70) for _ in range(draw.randrange(1, 5))]
    begins = [draw.randrange(30) for _ in sizes]
    most = 0
    with shared_reads(decoder) as shared:
        places = dict(enumerate(begins))
        readers = [shared.reader() for _ in sizes]
        assert all(reader.n_latents == len(W_dec) for reader in readers)
        while places:
            number = min(places, key=lambda n: (places[n] > begins[n], places[n]))
            start = places[number]
            stop = min(start + sizes[number], len(W_dec))
            assert torch.equal(readers[number].rows(start, stop), W_dec[start:stop])
            most = max(most, len(decoder.held))
            places[number] = stop
            if stop == len(W_dec):
                del places[number]
    assert set(decoder.reads.values()) == {1}
    assert set(decoder.reads) == set(range(min(begins), len(W_dec)))
    assert decoder.held == set()
    assert most <= 2 * sum(sizes) + max(begins) + 2 * max(*sizes, *begins)


def test_rows_that_come_again_are_read_again(monkeypatch):
    monkeypatch.setattr(decoder_module, "READ_BYTES", 1)
    decoder = Paged(matrix(100))
    with shared_reads(decoder) as shared:
        reader = shared.reader()
        for start in (0, 50, 0):
            assert torch.equal(reader.rows(start, start + 50), decoder._W_dec[start : start + 50])
    assert decoder.reads[0] == 2
    assert decoder.reads[60] == 1


def test_the_next_rows_are_read_ahead(monkeypatch):
    monkeypatch.setattr(decoder_module, "READ_BYTES", 1)
    decoder = Paged(matrix(100))
    with shared_reads(decoder) as shared:
        shared.reader().rows(0, 10)
        deadline = time.monotonic() + 20
        while set(decoder.reads) != set(range(100)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_nothing_is_read_by_a_thread_when_all_is_done():
    before = set(threading.enumerate())
    with shared_reads(Paged(matrix(100))) as shared:
        shared.reader().rows(0, 10)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_a_tensor_is_read_as_it_is():
    decoder = TensorDecoder(matrix(10))
    with shared_reads(decoder) as shared:
        assert shared.reader() is decoder


def moments(count: int) -> list[CrossMoment]:
    found = []
    for seed in range(count):
        draw = torch.Generator().manual_seed(seed)
        moment = CrossMoment(WIDTH)
        scale = 10.0 ** (3 * seed)
        moment.add(
            torch.randn(40, WIDTH, generator=draw), scale * torch.randn(40, WIDTH, generator=draw)
        )
        found.append(moment)
    return found


@pytest.mark.parametrize(
    ("impl", "latents"),
    [("reference", 20_000), ("torch", 20_000), ("cpp", 20_000), ("triton", 700)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_searches_together_have_the_bits_of_each_alone(impl, latents, dtype):
    if impl == "triton":
        pytest.importorskip("triton")
        # Triton's interpreter does not multiply bfloat16.
        dtype = torch.float16 if dtype == torch.bfloat16 else dtype
    decoder = Paged(matrix(latents, dtype=dtype))
    rankings = [Ranking(), Ranking(absolute=True), Ranking(largest=False, present_only=True)]
    searches = [
        Search(moment_problem([moment], decoder, impl), k, ranking, k != 7)
        for moment, ranking, k in zip(moments(3), rankings, (7, 50, 30), strict=True)
    ]
    together = top_latents_together(searches)
    several = {latent: n for latent, n in decoder.reads.items() if n > 1}
    assert len(several) < latents / 10 + 300  # those that were rescored, row by row
    for search, (found,) in zip(searches, together, strict=True):
        (alone,) = top_latents(search.problem, search.k, search.ranking, normalize=search.normalize)
        assert torch.equal(found.latents, alone.latents)
        assert torch.equal(found.scores, alone.scores)
        assert torch.equal(found.error_bound, alone.error_bound)
        assert found.certified == alone.certified


def test_a_screen_that_leaves_too_much_is_followed_by_a_scan_of_its_own():
    """One search's screen tells nothing apart, another's does: each goes its own way."""
    decoder = Paged(matrix(30_000))
    problems = [moment_problem([moment], decoder, "torch") for moment in moments(2)]

    class Blunt:
        def __init__(self, scorer, blur):
            self._scorer, self._blur = scorer, blur

        def scores_and_error(self, rows, norms):
            found = self._scorer.scores_and_error(rows, norms)
            return found._replace(error=found.error + self._blur)

    searches = [
        Search(
            replace(p, screen=lambda p=p, blur=blur: Blunt(p.scorer(), blur)), 5, Ranking(), True
        )
        for p, blur in zip(problems, (1e6, 1e-4), strict=True)
    ]
    together = top_latents_together(searches)
    for search, (found,) in zip(searches, together, strict=True):
        (alone,) = top_latents(search.problem, 5, Ranking(), normalize=True)
        assert torch.equal(found.latents, alone.latents)
        assert torch.equal(found.error_bound, alone.error_bound)
        assert found.certified


def tiled(sums: torch.Tensor, size: int):
    for start in range(0, len(sums), size):
        part = sums[start : start + size]
        yield TileSums(start, part, torch.ones(len(part), dtype=torch.bool))


def test_resamplings_together_have_the_bits_of_each_alone():
    draw = torch.Generator().manual_seed(0)
    given = []
    for pairs, size in ((5, 64), (9, 200), (30, 1000)):
        sums = torch.randn(900, pairs, generator=draw, dtype=torch.float64)
        latents = sums.mean(1).topk(6).indices
        weights = torch.rand(20, pairs, generator=draw, dtype=torch.float64)
        signs = torch.randint(2, (40, pairs), generator=draw) * 2.0 - 1.0
        keys = sums[latents] @ weights.T
        given.append((sums, size, Reweightings(signs.double(), weights, latents, keys)))
    together = resample_together(
        [Resampling(tiled(sums, size), how, Ranking()) for sums, size, how in given]
    )
    for found, (sums, size, how) in zip(together, given, strict=True):
        alone = resample(tiled(sums, size), how, Ranking())
        assert all(map(torch.equal, found, alone))


def test_whoever_has_come_least_far_goes_on():
    sums = torch.zeros(100, 1)
    order = [(n, tile.start) for n, tile in in_step([tiled(sums, 30), tiled(sums, 50), iter([])])]
    assert order == [(0, 0), (1, 0), (0, 30), (1, 50), (0, 60), (0, 90)]
