"""Bytes read past the system's cache, beside what a plain read gives."""

from __future__ import annotations

import errno
import gc
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deltalens.errors import InputError
from deltalens.storage import buffers as buffers_module
from deltalens.storage import direct as direct_module
from deltalens.storage.buffers import BLOCK, Buffers
from deltalens.storage.direct import DirectFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT is Linux's")


def opened(path: Path) -> DirectFile:
    with path.open("rb") as file:
        direct = DirectFile.of(file, path)
    if direct is None or direct.read(0, 1, Buffers()) is None:
        pytest.skip("the file system reads through its cache only")
    return direct


@pytest.mark.parametrize("size", [1, 511, 4095, 4096, 4097, 100_003, 1_048_576 + 17])
def test_any_range_of_a_file_of_any_size_has_its_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    file, buffers = opened(path), Buffers()
    draw = random.Random(size)
    ranges = [(0, size), (size - 1, size), (0, 1)]
    ranges += [tuple(sorted(draw.sample(range(size + 1), 2))) for _ in range(30)]
    for begin, end in ranges:
        part = file.read(begin, end, buffers)
        assert part is not None
        assert part.tobytes() == content[begin:end]
        assert (part.ctypes.data - begin) % BLOCK == 0  # numbers are aligned as in the file


def test_what_was_just_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000))
    file = opened(path)
    with path.open("r+b") as writing:
        writing.seek(9_999)
        writing.write(b"new")
    part = file.read(9_990, 10_010, Buffers())
    assert part is not None
    assert part.tobytes() == bytes(9) + b"new" + bytes(8)


@pytest.mark.parametrize("left", [0, 1, 8_192, 10_000, 19_999])
def test_a_file_that_became_shorter_is_an_error(tmp_path: Path, left: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000))
    file = opened(path)
    os.truncate(path, left)
    with pytest.raises(InputError, match=rf"file: ends at byte {left}, before 20000"):
        file.read(5, 20_000, Buffers())


def failing(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def preadv(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "preadv", preadv)


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000))
    file = opened(path)
    failing(monkeypatch, errno.EIO)
    with pytest.raises(InputError, match=r"bytes 3 to 9000 cannot be read \(Input/output error\)"):
        file.read(3, 9_000, Buffers())


def test_a_file_system_that_refuses_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20_000))
    file = opened(path)
    assert file.pays
    failing(monkeypatch, errno.EINVAL)
    assert file.read(3, 9_000, Buffers()) is None
    assert not file.pays


def test_a_file_on_a_slow_disk_had_better_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    opened(path)
    with path.open("rb") as reading:
        file, now = DirectFile.of(reading, path), 0.0
    assert file is not None

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(direct_module.time, "perf_counter", clock)
    monkeypatch.setattr(direct_module, "_TRIED_BYTES", 3 << 20)
    seconds = (1 << 20) / 0.4e9
    for read in range(3):
        assert file.pays, read
        file.read(0, 1 << 20, Buffers())
    assert not file.pays
    seconds = (1 << 20) / 0.6e9  # the disk was not to blame
    file.read(0, 1 << 20, Buffers())
    assert file.pays


def test_a_buffer_is_used_again_when_nothing_refers_to_it() -> None:
    buffers = Buffers()
    place = buffers.take(10_000).ctypes.data
    assert buffers.take(9_000).ctypes.data == place
    for hold in (lambda part: part[5:9], torch.from_numpy, lambda part: part[:80].view(np.float64)):
        held = hold(buffers.take(10_000))
        assert buffers.take(10_000).ctypes.data != place
        del held
        gc.collect()


def test_rows_that_somebody_keeps_never_change() -> None:
    buffers, kept = Buffers(), []
    for number in range(50):
        part = buffers.take(1000)
        part[:] = number
        rows = torch.from_numpy(part.view(np.int16)).view(torch.bfloat16).view(5, 100)
        if number % 7 == 0:
            kept.append((number, rows[3:]))
    for number, rows in kept:
        assert bool((rows.view(torch.uint8) == number).all())


def test_larger_parts_get_memory_of_their_own() -> None:
    buffers = Buffers()
    buffers.take(100)[:] = 1
    assert len(buffers.take(1_000_000)) == 1_000_000


def test_a_process_on_a_gpu_gets_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def empty(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        asked.append(pin_memory)
        return torch.zeros(size + 8, dtype=dtype)[3 : size + 3]  # aligned to nothing

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(buffers_module.torch, "empty", empty)
    buffers = Buffers()
    part = buffers.take(10_000)
    assert asked == [True]
    assert (part.ctypes.data % BLOCK, len(part)) == (0, 10_000)
    place = part.ctypes.data
    del part
    assert buffers.take(10_000).ctypes.data == place
