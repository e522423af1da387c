"""Tiles of a decoder in host memory on their way to a GPU, one copied while another is computed."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, tile_count, tiles
from deltalens.ranks.ranks import ALONE, Ranks


def device_tiles(
    decoder: Decoder, tile_rows: int, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[tuple[int, Tensor]]:
    """``(start, rows)`` over the whole decoder for work on ``device``; of several processes each
    has a range of the tiles.

    To a CUDA device rows in host memory are copied through two buffers, so a tile is valid until
    the next one is asked for, and to work on the stream that is current when it is handed out.
    Other tiles come as the decoder holds them.
    """
    held = tiles(decoder, tile_rows, ranks.span(tile_count(decoder, tile_rows)))
    if device.type != "cuda" or decoder.rows(0, 0).device.type != "cpu":
        yield from held
        return
    shape = (min(tile_rows, decoder.n_latents), decoder.d_model)
    slots = CudaSlots(shape, decoder.dtype, device)
    try:
        yield from double_buffered(held, slots)
    finally:
        slots.close()


def own_latents(decoder: Decoder, tile_rows: int, ranks: Ranks) -> slice:
    """The latents whose tiles are this process's."""
    own = ranks.span(tile_count(decoder, tile_rows))
    return slice(own.start * tile_rows, min(own.stop * tile_rows, decoder.n_latents))


def of_all(ranks: Ranks, found: list[Tensor], dim: int = 0) -> Tensor:
    """What the tiles of all processes gave, one after the other in the order of latents."""
    if ranks.size == 1:
        return torch.cat(found, dim)
    parts = ranks.gather([each.cpu() for each in found])
    together = torch.cat([each for part in parts for each in part], dim)
    return together.to(found[0].device) if found else together


class Slots(Protocol):
    """Two buffers on a device, numbered 0 and 1."""

    def fill(self, slot: int, rows: Tensor) -> None:
        """Begin to copy host ``rows`` into a slot that :meth:`used` was called for or that is
        new. Called from a thread of its own."""
        ...

    def take(self, slot: int, size: int) -> Tensor:
        """The first ``size`` rows of a filled slot, for work that is queued from here on."""
        ...

    def used(self, slot: int) -> None:
        """All work on the slot has been queued."""
        ...


def double_buffered(
    held: Iterator[tuple[int, Tensor]], slots: Slots
) -> Iterator[tuple[int, Tensor]]:
    """The tiles, each in a slot; reading and copying the next ones goes on meanwhile."""

    def fill(slot: int) -> tuple[int, int] | None:
        start, rows = next(held, (0, None))
        if rows is None:
            return None
        slots.fill(slot, rows)
        return start, rows.shape[0]

    with ThreadPoolExecutor(1, "deltalens-upload") as uploader:
        filling = deque(uploader.submit(fill, slot) for slot in (0, 1))
        for slot in itertools.cycle((0, 1)):
            filled = filling.popleft().result()
            if filled is None:
                return
            start, size = filled
            yield start, slots.take(slot, size)
            slots.used(slot)
            filling.append(uploader.submit(fill, slot))


class CudaSlots:
    """Two pinned host buffers and two device buffers, filled on a stream of their own.

    Rows that lie in pinned memory, as those do that were read past the system's cache, are copied
    from there.

    Made, taken from and closed by the thread that computes; ``copied`` and ``used`` order the two
    streams and both host threads.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        # Tensors made in inference mode could not be written to by the filling thread, outside it.
        with torch.inference_mode(False):
            self._pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
            self._sources = [pinned[:0] for pinned in self._pinned]  # of copies under way
            self._buffers = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]
        self._used = [torch.cuda.Event() for _ in range(2)]
        for slot in (0, 1):  # work queued before may still write to the memory of new buffers
            self.used(slot)

    def fill(self, slot: int, rows: Tensor) -> None:
        size = rows.shape[0]
        self._copied[slot].synchronize()  # the last copy out of it; at once where there was none
        source = rows if rows.is_pinned() else self._pinned[slot][:size].copy_(rows)
        self._sources[slot] = source  # its memory is not used again before the next fill
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used[slot])
            self._buffers[slot][:size].copy_(source, non_blocking=True)
            self._copied[slot].record(self._stream)

    def take(self, slot: int, size: int) -> Tensor:
        torch.cuda.current_stream(self._device).wait_event(self._copied[slot])
        return self._buffers[slot][:size]

    def used(self, slot: int) -> None:
        self._used[slot].record(torch.cuda.current_stream(self._device))

    def close(self) -> None:
        """Wait for copies that nobody took, before the buffers' memory is given to others."""
        self._stream.synchronize()
