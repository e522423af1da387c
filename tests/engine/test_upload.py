"""How a scan walks through a decoder: what is read ahead, released, and copied to a device."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from deltalens.engine import decoder as decoder_module
from deltalens.engine.decoder import Reader, TensorDecoder, gather_rows, tiles
from deltalens.engine.upload import CudaSlots, device_tiles, double_buffered

WAIT = 20  # seconds, for threads that must come


class Paged:
    """Rows that are in memory only from when they are read to their release."""

    def __init__(self, W_dec: Tensor) -> None:
        self.n_latents, self.d_model = W_dec.shape
        self.dtype = W_dec.dtype
        self.W_dec = W_dec
        self.held: set[int] = set()
        self.most_held = 0
        self.read: list[int] = []

    def reader(self) -> Reader:
        return self.read_rows

    def read_rows(self, start: int, stop: int) -> Tensor:
        self.read += range(start, stop)
        self.prefetch(start, stop)
        return self.rows(start, stop)

    def prefetch(self, start: int, stop: int) -> None:
        self.held |= set(range(start, stop))
        self.most_held = max(self.most_held, len(self.held))

    def release(self, start: int, stop: int) -> None:
        self.held -= set(range(start, stop))

    def rows(self, start: int, stop: int) -> Tensor:
        assert self.held >= set(range(start, stop)), "not prefetched"
        return self.W_dec[start:stop]


@pytest.mark.parametrize("tile_rows", [1, 7, 64, 100, 1000])
def test_rows_are_read_once_and_released(monkeypatch: pytest.MonkeyPatch, tile_rows: int) -> None:
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 60 * 3 * 4)
    monkeypatch.setattr(decoder_module, "READ_BYTES", 20 * 3 * 4)
    decoder = Paged(torch.randn(333, 3))
    for _ in range(2):
        decoder.read.clear()
        seen = [(start, rows.clone()) for start, rows in tiles(decoder, tile_rows)]
        assert torch.equal(torch.cat([rows for _, rows in seen]), decoder.W_dec)
        assert [start for start, _ in seen] == list(range(0, 333, tile_rows))
        assert decoder.read == list(range(333))
        assert not decoder.held
    step = max(20, tile_rows)
    assert decoder.most_held <= step + max(60, step)


def test_the_next_rows_are_read_while_a_tile_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 40 * 3 * 4)
    monkeypatch.setattr(decoder_module, "READ_BYTES", 1)
    read = threading.Event()

    class Signalling(Paged):
        def read_rows(self, start: int, stop: int) -> Tensor:
            assert threading.current_thread() is not threading.main_thread()
            if start == 40:
                read.set()
            return super().read_rows(start, stop)

    next(tiles(Signalling(torch.randn(100, 3)), 5))
    assert read.wait(WAIT)


def test_a_failure_to_read_reaches_the_scan() -> None:
    class Failing(Paged):
        def read_rows(self, start: int, stop: int) -> Tensor:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(tiles(Failing(torch.randn(9, 3)), 4))


def test_gathered_rows_are_prefetched_released_and_kept() -> None:
    decoder = Paged(torch.randn(50, 3))
    rows = gather_rows(decoder, torch.tensor([3, 40, 7]))
    assert torch.equal(rows, decoder.W_dec[[3, 40, 7]])
    assert not decoder.held
    assert gather_rows(decoder, torch.tensor([], dtype=torch.int64)).shape == (0, 3)


class CheckedSlots:
    """Buffers that may only be filled when free and only be taken when filled."""

    def __init__(self, rows: int, d_model: int) -> None:
        self.buffers = torch.full((2, rows, d_model), torch.nan)
        self.state = ["free", "free"]
        self.filled = [threading.Event(), threading.Event()]

    def fill(self, slot: int, rows: Tensor) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert self.state[slot] == "free"
        self.buffers[slot].fill_(torch.nan)
        self.buffers[slot, : rows.shape[0]] = rows
        self.state[slot] = "filled"
        self.filled[slot].set()

    def take(self, slot: int, size: int) -> Tensor:
        assert self.state[slot] == "filled"
        self.state[slot] = "in use"
        self.filled[slot].clear()
        return self.buffers[slot, :size]

    def used(self, slot: int) -> None:
        assert self.state[slot] == "in use"
        self.state[slot] = "free"


@pytest.mark.parametrize("n_latents", [1, 4, 5, 8, 9, 12, 61])
def test_one_slot_is_filled_while_the_other_is_in_use(n_latents: int) -> None:
    W_dec = torch.randn(n_latents, 3)
    slots = CheckedSlots(4, 3)
    seen = []
    for start, rows in double_buffered(as_tiles(W_dec, 4), slots):
        if start + 4 < n_latents:
            assert slots.filled[1 - start // 4 % 2].wait(WAIT)
        assert slots.state[start // 4 % 2] == "in use"
        seen.append(rows.clone())
    assert torch.equal(torch.cat(seen), W_dec)


def test_an_abandoned_upload_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    uploading = double_buffered(as_tiles(torch.randn(100, 3), 4), CheckedSlots(4, 3))
    next(uploading)
    assert set(threading.enumerate()) > before
    uploading.close()
    assert set(threading.enumerate()) == before


def test_a_failure_to_upload_reaches_the_scan() -> None:
    def failing() -> Iterator[tuple[int, Tensor]]:
        yield 0, torch.randn(4, 3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(double_buffered(failing(), CheckedSlots(4, 3)))


def test_a_cpu_gets_the_rows_where_they_are() -> None:
    W_dec = torch.randn(100, 3)
    held = device_tiles(TensorDecoder(W_dec), 30, torch.device("cpu"))
    expected = [W_dec[start:].data_ptr() for start in range(0, 100, 30)]
    assert [rows.data_ptr() for _, rows in held] == expected


def as_tiles(W_dec: Tensor, tile_rows: int) -> Iterator[tuple[int, Tensor]]:
    return tiles(TensorDecoder(W_dec), tile_rows)


class StandIn:
    """A stream or an event that has nothing to wait for."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def slots_without_a_device(monkeypatch: pytest.MonkeyPatch) -> CudaSlots:
    """Slots whose device is the CPU; their pinned buffers hold NaN."""
    for name in ("Stream", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: StandIn())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(
        torch, "empty", lambda shape, dtype, **_: torch.full(shape, torch.nan, dtype=dtype)
    )
    return CudaSlots((4, 3), torch.float32, torch.device("cpu"))


def test_pinned_rows_are_copied_from_where_they_are(
    monkeypatch: pytest.MonkeyPatch, slots_without_a_device: CudaSlots
) -> None:
    slots = slots_without_a_device
    monkeypatch.setattr(Tensor, "is_pinned", lambda _: True)
    array = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    expected, gone = torch.tensor(array), weakref.ref(array)
    slots.fill(0, torch.from_numpy(array))
    del array
    assert gone() is not None, "the copy may be under way"
    assert torch.equal(slots.take(0, 3), expected)
    assert bool(slots._pinned[0].isnan().all())
    slots.fill(0, torch.randn(4, 3))
    assert gone() is None


def test_other_rows_are_copied_through_pinned_memory(slots_without_a_device: CudaSlots) -> None:
    slots, rows = slots_without_a_device, torch.randn(3, 3)
    slots.fill(1, rows)
    assert torch.equal(slots.take(1, 3), rows)
    assert torch.equal(slots._pinned[1][:3], rows)
