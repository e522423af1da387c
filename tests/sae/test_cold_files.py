"""Decoders whose files the system does not hold: read past its cache, the same to the bit."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import deltalens
from deltalens.engine import decoder as decoder_module
from deltalens.engine.decoder import tiles
from deltalens.engine.resampling.shared import shared_reads
from deltalens.engine.upload import double_buffered
from deltalens.errors import InputError
from deltalens.sae.files import open_tensors
from deltalens.sae.files.mapped import map_file
from deltalens.sae.stored import StoredDecoder, StoredTensor
from deltalens.storage.direct import DirectFile
from deltalens.storage.mapping import resident_share

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT is Linux's")

N_LATENTS, D_MODEL = 3001, 72


def write(path: Path, W: Tensor, before: int) -> None:
    """W behind another array of so many bytes, which shifts it."""
    other = torch.zeros(before, dtype=torch.uint8)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({"A": other, "W": W}, path)
    elif path.suffix == ".npz":
        np.savez(path, A=other.numpy(), W=W.numpy())
    elif path.suffix == ".npy":
        np.save(path, W.numpy())
    else:
        torch.save({"A": other, "W": W}, path)


def shifted(path: Path, W: Tensor, shift: int) -> None:
    """A safetensors file whose bytes begin after a header of any length."""
    name = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[W.dtype]
    shape, size = list(W.shape), W.nbytes
    header = f'{{"W":{{"dtype":"{name}","shape":{shape},"data_offsets":[0,{size}]}}}}'
    text = header.encode() + b" " * shift
    content = W.contiguous().view(torch.uint8).numpy().tobytes()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opened_cold(path: Path) -> StoredTensor:
    """The tensor, none of which the system holds; skips where it cannot be got to drop it."""
    drop_from_cache(path)
    stored = open_tensors(path).get("W")
    drop_from_cache(path)
    return stored


@pytest.fixture
def direct_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every read that went past the cache; reads are small, so that there are several."""
    monkeypatch.setattr(decoder_module, "READ_BYTES", 40_000)
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 100_000)
    sizes: list[int] = []
    read = DirectFile.read

    def counted(self: DirectFile, begin: int, end: int, *buffers: object) -> object:
        part = read(self, begin, end, *buffers)  # type: ignore[arg-type]
        sizes.append(0 if part is None else len(part))
        return part

    monkeypatch.setattr(DirectFile, "read", counted)
    return sizes


def needs_direct(path: Path) -> None:
    path.write_bytes(bytes(100_000))
    drop_from_cache(path)
    memory = map_file(path)
    with path.open("rb") as file:
        direct = DirectFile.of(file, path)
    if direct is None or resident_share(memory, 0, 100_000) > 0:
        pytest.skip("the file system keeps its files in memory")


CASES = [
    (suffix, dtype)
    for suffix in (".safetensors", ".npy", ".npz", ".pt")
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not (suffix.startswith(".np") and dtype == torch.bfloat16)  # which NumPy lacks
]


@pytest.mark.parametrize("tile_rows", [1, 64, 257, 5000])
@pytest.mark.parametrize(("suffix", "dtype"), CASES, ids=str)
def test_every_file_gives_its_rows(
    tmp_path: Path, direct_reads: list[int], suffix: str, dtype: torch.dtype, tile_rows: int
) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL).to(dtype)
    path = tmp_path / f"W{suffix}"
    write(path, W, 4096 * 3 + 16)
    decoder = StoredDecoder(opened_cold(path))
    seen = [(start, rows.clone()) for start, rows in tiles(decoder, tile_rows)]
    assert [start for start, _ in seen] == list(range(0, N_LATENTS, tile_rows))
    assert torch.equal(torch.cat([rows for _, rows in seen]), W)
    assert sum(direct_reads) > W.nbytes / 2  # opening a file brings some of it into memory


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4, 8, 1000, 4091])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_may_begin_at_any_byte(
    tmp_path: Path, direct_reads: list[int], shift: int, dtype: torch.dtype
) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL).to(dtype)
    path = tmp_path / "W.safetensors"
    shifted(path, W, shift)
    decoder = StoredDecoder(opened_cold(path))
    assert torch.equal(torch.cat([rows.clone() for _, rows in tiles(decoder, 100)]), W)
    assert sum(direct_reads) > W.nbytes / 2


def test_float64_rows_are_rounded(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL, dtype=torch.float64)
    path = tmp_path / "W.safetensors"
    write(path, W, 8)
    decoder = StoredDecoder(opened_cold(path))
    assert torch.equal(torch.cat([rows.clone() for _, rows in tiles(decoder, 99)]), W.float())
    assert sum(direct_reads) > W.nbytes / 2


@pytest.mark.usefixtures("direct_reads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scores_and_winners_are_those_of_the_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    W = torch.randn(N_LATENTS, 600).to(dtype)
    moment = deltalens.CrossMoment(600)
    moment.add(torch.randn(50, 600), torch.randn(50, 600))
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    scores = moment.scores(StoredDecoder(opened_cold(path)))
    assert torch.equal(scores, moment.scores(W))
    top, expected = moment.topk(StoredDecoder(opened_cold(path)), 30), moment.topk(W, 30)
    assert torch.equal(top.latents, expected.latents)
    assert torch.equal(top.scores, expected.scores)


def test_rows_that_are_kept_stay_what_they_are(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    kept = [rows for _, rows in tiles(StoredDecoder(opened_cold(path)), 50)]  # not copied
    assert sum(direct_reads) > W.nbytes / 2
    assert torch.equal(torch.cat(kept), W)


def test_what_is_in_memory_is_taken_from_there(tmp_path: Path, direct_reads: list[int]) -> None:
    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    stored = open_tensors(path).get("W")
    path.read_bytes()
    first = stored.array.ctypes.data
    places = [rows.data_ptr() for _, rows in tiles(StoredDecoder(stored), 50)]
    assert places == [first + start * D_MODEL * 4 for start in range(0, N_LATENTS, 50)]
    assert direct_reads == []


def test_a_scan_does_not_fill_the_cache(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    path = tmp_path / "W.safetensors"
    write(path, torch.randn(N_LATENTS, D_MODEL), 24)
    stored = opened_cold(path)
    for _ in range(2):
        direct_reads.clear()
        for _ in tiles(StoredDecoder(stored), 50):
            pass
        assert sum(direct_reads) > stored.array.nbytes / 2


def test_a_file_in_memory_alone_is_read_like_any_other(direct_reads: list[int]) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("no file system in memory")
    path = memory / f"deltalens-test-{os.getpid()}.safetensors"
    W = torch.randn(N_LATENTS, D_MODEL)
    try:
        write(path, W, 24)
        decoder = StoredDecoder(opened_cold(path))
        assert torch.equal(torch.cat([rows.clone() for _, rows in tiles(decoder, 50)]), W)
    finally:
        path.unlink(missing_ok=True)


def test_where_direct_reads_are_refused_the_mapping_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_reads: list[int]
) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    stored = opened_cold(path)
    monkeypatch.setattr(os, "preadv", preadv)
    assert torch.equal(torch.cat([rows.clone() for _, rows in tiles(StoredDecoder(stored), 50)]), W)
    assert sum(direct_reads) == 0
    assert len(direct_reads) <= 1  # asked once


def test_a_file_that_becomes_shorter_ends_the_scan(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    stored = opened_cold(path)
    reading = tiles(StoredDecoder(stored), 50)
    seen = [next(reading)[1].clone()]
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"W\.safetensors: ends at byte .*it became shorter"):
        seen.extend(rows.clone() for _, rows in reading)
    found = torch.cat(seen)
    assert torch.equal(found, W[: len(found)])
    assert direct_reads


def test_readers_in_step_read_a_cold_file_once(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL).bfloat16()
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    with shared_reads(StoredDecoder(opened_cold(path))) as shared:
        first, second = shared.reader(), shared.reader()
        for start in range(0, N_LATENTS, 60):
            assert torch.equal(first.rows(start, start + 60), W[start : start + 60])
            for inner in range(start, min(start + 60, N_LATENTS), 20):
                assert torch.equal(second.rows(inner, inner + 20), W[inner : inner + 20])
    assert W.nbytes / 2 < sum(direct_reads) <= W.nbytes


class Delayed:
    """Copies to a device that read their source only when another slot is filled, as those do
    that go on behind the back of the thread that began them."""

    def __init__(self) -> None:
        self.begun: dict[int, Tensor] = {}
        self.done: dict[int, Tensor] = {}

    def fill(self, slot: int, rows: Tensor) -> None:
        self.begun[slot] = rows

    def take(self, slot: int, size: int) -> Tensor:
        self.done[slot] = self.begun[slot].clone()
        return self.done[slot][:size]

    def used(self, slot: int) -> None:
        pass


def test_a_copy_under_way_finds_its_rows(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    held = tiles(StoredDecoder(opened_cold(path)), 100)
    seen = [rows.clone() for _, rows in double_buffered(held, Delayed())]
    assert torch.equal(torch.cat(seen), W)
    assert sum(direct_reads) > W.nbytes / 2


def test_a_file_that_was_replaced_is_still_read(tmp_path: Path, direct_reads: list[int]) -> None:
    needs_direct(tmp_path / "probe")
    W = torch.randn(N_LATENTS, D_MODEL)
    path = tmp_path / "W.safetensors"
    write(path, W, 24)
    stored = opened_cold(path)
    (tmp_path / "new").write_bytes(b"another")
    (tmp_path / "new").rename(path)
    assert torch.equal(torch.cat([rows.clone() for _, rows in tiles(StoredDecoder(stored), 50)]), W)
    assert sum(direct_reads) > W.nbytes / 2
