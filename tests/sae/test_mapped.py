"""Scans of decoders that stay in their file: in place, in step with the disk, in little memory."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import deltalens
from deltalens.engine import Decoder
from deltalens.engine import decoder as decoder_module
from deltalens.engine.decoder import gather_rows, tiles
from deltalens.engine.numerics.extension import as_array
from deltalens.engine.problem import moment_problem
from deltalens.engine.scan import full_scores
from deltalens.sae.files import open_tensors
from deltalens.sae.stored import StoredDecoder, StoredTensor

ENDS = 256 << 10  # pages that the array shares with others, and those a fault maps with them

linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are advised on Linux only")


def stored(path: Path, W_dec: Tensor) -> StoredTensor:
    """W_dec in a file where other tensors share its first and its last page."""
    others = {"b_dec": torch.randn(37), "z": torch.randn(91)}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({**others, "W": W_dec}, path)
    elif path.suffix == ".npz":
        arrays = {name: tensor.numpy() for name, tensor in others.items()}
        np.savez(path, b_dec=arrays["b_dec"], W=W_dec.numpy(), z=arrays["z"])
    else:
        np.save(path, W_dec.numpy())
    return open_tensors(path).get("W")


def moment_for(d_model: int) -> deltalens.CrossMoment:
    moment = deltalens.CrossMoment(d_model)
    moment.add(torch.randn(50, d_model), torch.randn(50, d_model))
    return moment


CASES = [
    (".safetensors", torch.bfloat16),
    (".safetensors", torch.float32),
    (".npz", torch.float32),
    (".npz", torch.float16),
    (".npy", torch.float16),
]


@pytest.mark.parametrize(("suffix", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_mapped_decoder_scores_bitwise_as_its_tensor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    dtype: torch.dtype,
    transposed: bool,
) -> None:
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 1 << 20)
    W_dec = torch.randn(20_011, 72).to(dtype)
    path = tmp_path / f"W{suffix}"
    array = stored(path, W_dec.T.contiguous()).T if transposed else stored(path, W_dec)
    decoder = StoredDecoder(array)
    moment = moment_for(72)
    assert torch.equal(moment.scores(decoder), moment.scores(W_dec))
    for k in (1, 300):
        top, expected = moment.topk(decoder, k), moment.topk(W_dec, k)
        assert torch.equal(top.latents, expected.latents)
        assert torch.equal(top.scores, expected.scores)
        assert top.certified == expected.certified


def test_a_scan_that_must_start_again_finds_every_row_again(tmp_path: Path) -> None:
    W_dec = torch.randn(4, 72).bfloat16().repeat(5000, 1)  # more equal rows than are kept
    decoder = StoredDecoder(stored(tmp_path / "W.safetensors", W_dec))
    moment = moment_for(72)
    top, expected = moment.topk(decoder, 3), moment.topk(W_dec, 3)
    assert torch.equal(top.latents, expected.latents)
    assert torch.equal(top.scores, expected.scores)


class RecordingScorer:
    """Scores nothing; remembers where the kernels would read."""

    def __init__(self) -> None:
        self.addresses: list[int] = []

    def scores(self, rows: Tensor) -> Tensor:
        self.addresses.append(as_array(rows).__array_interface__["data"][0])
        return torch.zeros(1, rows.shape[0], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".pt"])
def test_rows_reach_the_kernels_in_place(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    if suffix == ".npy" and dtype == torch.bfloat16:
        pytest.skip("NumPy has no bfloat16")
    path, W_dec = tmp_path / f"W{suffix}", torch.randn(20_011, 72).to(dtype)
    if suffix == ".pt":
        torch.save({"W": W_dec}, path)
        file = open_tensors(path).get("W")
    else:
        file = stored(path, W_dec)
    scorer = RecordingScorer()
    problem = moment_problem([moment_for(72)], StoredDecoder(file), "torch")
    unwatched = dataclasses.replace(problem, scorer=lambda: scorer, impl="reference")
    full_scores(unwatched, normalize=False)
    row_bytes = 72 * dtype.itemsize
    starts = range(0, 20_011, problem.tile_rows)
    assert len(starts) > 2
    assert scorer.addresses == [file.array.ctypes.data + start * row_bytes for start in starts]


def resident(array: np.ndarray) -> int:
    """Bytes of the mapping that holds ``array`` that count in the process's resident set."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *_ = line.split()
        if "-" in first:
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= array.ctypes.data < end
        elif inside and first == "Rss:":
            return int(line.split()[1]) << 10
    raise AssertionError("not mapped")


class Unpaged:
    """The same decoder, read without advice."""

    def __init__(self, decoder: Decoder) -> None:
        self.n_latents, self.d_model, self.dtype = decoder.n_latents, decoder.d_model, decoder.dtype
        self.rows = decoder.rows


def largest_resident(decoder: Decoder, array: np.ndarray) -> int:
    largest = 0
    for _, rows in tiles(decoder, 8192):
        rows.view(torch.int16).sum()
        largest = max(largest, resident(array))
    return max(largest, resident(array))


@linux
def test_a_scan_keeps_few_pages_of_its_file(tmp_path: Path) -> None:
    n_latents, d_model = 200_000, 512  # 205 MB, in tiles of 8 MB
    moment = moment_for(d_model)
    part = torch.randn(n_latents // 10, d_model).bfloat16()
    file = stored(tmp_path / "W.safetensors", part.repeat(10, 1))
    decoder = StoredDecoder(file)
    size, tile = file.array.nbytes, 8192 * d_model * 2
    for _ in range(2):
        assert largest_resident(decoder, file.array) < tile + (4 << 20)
        assert resident(file.array) < ENDS
    moment.topk(decoder, 20)
    assert resident(file.array) < ENDS
    # Without release everything that was read stays.
    assert largest_resident(Unpaged(decoder), file.array) > 0.95 * size


@linux
def test_gathered_rows_leave_no_pages(tmp_path: Path) -> None:
    W_dec = torch.randn(100_000, 128)
    file = stored(tmp_path / "W.safetensors", W_dec)
    latents = torch.randperm(100_000)[:600]
    rows = gather_rows(StoredDecoder(file), latents)
    assert torch.equal(rows, W_dec[latents])
    assert resident(file.array) < ENDS


@linux
def test_released_pages_of_other_tensors_keep_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "W.npz"
    stored(path, torch.randn(10_000, 64))
    file = open_tensors(path)
    before, after = file.get("b_dec").read(), file.get("z").read()
    before.fill_(1.0), after.fill_(2.0)
    decoder = StoredDecoder(file.get("W"))
    moment_for(64).topk(decoder, 3)
    assert bool((before == 1).all() and (after == 2).all())


def cached_pages(array: np.ndarray, start: int, stop: int) -> list[bool]:
    """Which pages of rows ``start … stop - 1`` the system holds, without reading any."""
    row_bytes = array.nbytes // array.shape[0]
    begin = (array.ctypes.data + start * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    size = array.ctypes.data + stop * row_bytes - begin
    held = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(size), held) == 0
    return [bool(page & 1) for page in held]


def drop_from_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@linux
def test_prefetched_rows_are_read_from_disk_in_the_background(tmp_path: Path) -> None:
    path = tmp_path / "W.safetensors"
    file = stored(path, torch.randn(100_000, 128))  # 51 MB
    drop_from_cache(path)
    if any(cached_pages(file.array, 20_000, 100_000)):
        pytest.skip("the file system keeps its files in memory")
    StoredDecoder(file).prefetch(20_000, 60_000)
    deadline = time.monotonic() + 20
    while not all(cached_pages(file.array, 20_000, 60_000)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not any(cached_pages(file.array, 61_000, 100_000))
    assert resident(file.array) < ENDS
