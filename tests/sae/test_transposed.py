"""Rows of matrices stored by column: from memory, or from a copy that is never stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import deltalens
from deltalens.engine.decoder import PagedDecoder, tiles
from deltalens.errors import InputError
from deltalens.sae import transposed as module
from deltalens.sae.files import open_tensors
from deltalens.sae.matrices import decoder_from
from deltalens.sae.stored import StoredDecoder
from deltalens.sae.transposed import SUFFIX, TransposedTensor
from deltalens.storage.atomic import writing


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix is large, and is written in many chunks."""
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(module, "CHUNK_BYTES", 3000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, W: Tensor) -> Path:
    """``W``.T, as formats by column have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save({"D": W.T.contiguous()}, path)
    elif path.suffix == ".npz":
        np.savez(path, D=W.T.numpy())
    else:
        safetensors.torch.save_file({"D": W.T.contiguous()}, path)
    return path


def rows_of(path: Path) -> Tensor:
    decoder = decoder_from(open_tensors(path), "D", transposed=True)
    return torch.cat([rows for _, rows in tiles(decoder, 13)])


def written(directory: Path) -> list[Path]:
    return sorted(directory.glob(f".*{SUFFIX}")) if directory.is_dir() else []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("shape", [(1000, 32), (97, 96), (96, 97), (64, 64), (1, 5), (5, 1)])
@pytest.mark.usefixtures("copies")
def test_rows_of_a_copy(
    tmp_path: Path, suffix: str, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    if suffix == ".npz" and dtype == torch.bfloat16:
        pytest.skip("NumPy has no bfloat16")
    W = torch.randn(shape).to(dtype)
    path = write(tmp_path / "saes" / f"W{suffix}", W)
    assert torch.equal(rows_of(path), W)
    (copy,) = written(tmp_path / "saes")
    assert torch.equal(safetensors.torch.load_file(copy)["rows"], W)
    assert not (tmp_path / "cache").exists()


def test_a_small_matrix_leaves_no_file(tmp_path: Path) -> None:
    W = torch.randn(97, 96)
    assert torch.equal(rows_of(write(tmp_path / "W.pt", W)), W)
    assert [entry.name for entry in tmp_path.iterdir()] == ["W.pt"]


@pytest.mark.usefixtures("copies")
def test_nothing_is_written_before_rows_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "W.pt", torch.randn(97, 96))
    decoder = decoder_from(open_tensors(path), "D", transposed=True)
    assert (decoder.n_latents, decoder.d_model, decoder.dtype) == (97, 96, torch.float32)
    assert written(tmp_path) == []


@pytest.mark.usefixtures("copies")
def test_the_copy_is_written_once_and_scanned_like_any_file(tmp_path: Path) -> None:
    W = torch.randn(3000, 64)
    path = write(tmp_path / "W.pt", W)
    rows_of(path)
    (copy,) = written(tmp_path)
    before = copy.stat().st_mtime_ns
    decoder = decoder_from(open_tensors(path), "D", transposed=True)
    assert isinstance(decoder, PagedDecoder)
    moment = deltalens.CrossMoment(64)
    moment.add(torch.randn(50, 64), torch.randn(50, 64))
    assert torch.equal(moment.scores(decoder), moment.scores(W))
    assert decoder.rows(0, 3000).data_ptr() + 64 * 4 == decoder.rows(1, 3000).data_ptr()
    assert copy.stat().st_mtime_ns == before


@pytest.mark.usefixtures("copies")
def test_a_changed_file_never_gets_the_rows_of_the_old_one(tmp_path: Path) -> None:
    one, two = torch.randn(2, 97, 96)
    path = write(tmp_path / "W.safetensors", one)
    stamp = path.stat().st_mtime_ns
    assert torch.equal(rows_of(path), one)
    write(path, two)
    os.utime(path, ns=(stamp, stamp))  # same size, same time, other numbers
    assert torch.equal(rows_of(path), two)


@pytest.mark.usefixtures("copies")
def test_a_sampled_fingerprint_is_not_alone_in_telling_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fingerprint", lambda path: "sha256-sampled:always the same")
    one, two = torch.randn(2, 97, 96)
    path = write(tmp_path / "W.safetensors", one)
    assert torch.equal(rows_of(path), one)
    stamp = path.stat().st_mtime_ns
    write(path, two)
    os.utime(path, ns=(stamp + 1, stamp + 1))
    assert torch.equal(rows_of(path), two)


@pytest.mark.usefixtures("copies")
def test_two_matrices_of_a_file_and_two_files_of_a_name_are_told_apart(tmp_path: Path) -> None:
    matrices = torch.randn(3, 64, 64)
    safetensors.torch.save_file(
        {"D": matrices[0].T.contiguous(), "E": matrices[1].T.contiguous()},
        tmp_path / "W.safetensors",
    )
    file = open_tensors(tmp_path / "W.safetensors")
    for name, W in zip("DE", matrices[:2], strict=True):
        decoder = decoder_from(file, name, transposed=True)
        assert torch.equal(decoder.rows(0, 64), W)
    other = write(tmp_path / "other" / "W.safetensors", matrices[2])
    assert torch.equal(rows_of(other), matrices[2])


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "other shape"])
@pytest.mark.usefixtures("copies")
def test_a_damaged_copy_is_written_again(tmp_path: Path, damage: str) -> None:
    W = torch.randn(97, 96)
    path = write(tmp_path / "W.pt", W)
    rows_of(path)
    (copy,) = written(tmp_path)
    content = copy.read_bytes()
    if damage == "other shape":
        safetensors.torch.save_file({"rows": W[:50].contiguous()}, copy)
    else:
        copy.write_bytes(
            {"truncated": content[:-1], "header": b"\0" + content[1:], "empty": b""}[damage]
        )
    assert torch.equal(rows_of(path), W)
    assert copy.read_bytes() == content


@pytest.mark.parametrize("place", [0.3, 0.9, -1])
@pytest.mark.usefixtures("copies")
def test_a_flipped_bit_is_noticed_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: float
) -> None:
    W = torch.randn(97, 96)
    path = write(tmp_path / "W.pt", W)
    rows_of(path)
    (copy,) = written(tmp_path)
    content = bytearray(copy.read_bytes())
    content[int(place * len(content)) if place > 0 else -1] ^= 4
    copy.write_bytes(content)
    with pytest.warns(UserWarning, match=r"rows.safetensors is damaged and is made again"):
        assert torch.equal(rows_of(path), W)
    assert torch.equal(rows_of(path), W)
    monkeypatch.setattr(module, "_checksum", None)  # what is known to be sound is not read again
    assert torch.equal(rows_of(path), W)


@pytest.mark.usefixtures("copies")
def test_a_check_can_be_spared_and_earlier_copies_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = torch.randn(97, 96)
    path = write(tmp_path / "W.pt", W)
    rows_of(path)
    (copy,) = written(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("DELTALENS_CHECK_COPIES", "0")
        patch.setattr(module, "_checksum", None)
        assert torch.equal(rows_of(path), W)
    safetensors.torch.save_file({"rows": W + 1}, copy)  # as it was before there were checksums
    assert torch.equal(rows_of(path), W)
    assert "checksum" in safetensors.torch.load_file(copy)


@pytest.mark.usefixtures("copies")
def test_what_killed_writers_left_of_a_copy_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "W.pt", torch.randn(97, 96))
    rows_of(path)
    (copy,) = written(tmp_path)
    (tmp_path / f"{copy.name}.0123456789abcdef.tmp").write_bytes(b"half")
    rows_of(path)
    assert sorted(place.name for place in tmp_path.iterdir()) == [copy.name, "W.pt"]


@pytest.mark.usefixtures("copies")
def test_elsewhere_when_the_directory_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = torch.randn(97, 96)
    path = write(tmp_path / "saes" / "W.pt", W)
    forbid(monkeypatch, tmp_path / "saes")
    assert torch.equal(rows_of(path), W)
    assert written(tmp_path / "saes") == []
    (copy,) = written(tmp_path / "cache" / "deltalens")
    before = copy.stat().st_mtime_ns
    assert torch.equal(rows_of(path), W)
    assert copy.stat().st_mtime_ns == before


def forbid(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """New files there fail as on a read-only file system; tests may run as root."""
    make = module.complete_file

    def refuse(path: Path) -> AbstractContextManager[Path]:
        if path.parent in directories:
            with writing(path):
                raise OSError(30, "Read-only file system")
        return make(path)

    monkeypatch.setattr(module, "complete_file", refuse)


@pytest.mark.usefixtures("copies")
def test_nowhere_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "W.pt", torch.randn(97, 96))
    forbid(monkeypatch, tmp_path, tmp_path / "cache" / "deltalens")
    with pytest.raises(InputError, match=r"Read-only file system.*set XDG_CACHE_HOME") as error:
        rows_of(path)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("copies")
def test_an_interrupted_copy_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = torch.randn(97, 96)
    path = write(tmp_path / "W.pt", W)
    plain = module._transposed
    calls = []

    def interrupted(array: np.ndarray) -> np.ndarray:
        calls.append(array.shape)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(array)

    monkeypatch.setattr(module, "_transposed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows_of(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["W.pt"]
    assert torch.equal(rows_of(path), W)


MEASURE = """
import sys
from pathlib import Path
from deltalens.sae.files import open_tensors
from deltalens.sae.matrices import decoder_from

def anonymous():  # bytes that the system cannot take back
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

from deltalens.sae import transposed
peak = [0]
plain = transposed._transposed
def watched(array):
    rows = plain(array)
    peak[0] = max(peak[0], anonymous())
    return rows
transposed._transposed = watched
transposed.IN_MEMORY_BYTES = 0
transposed.CHUNK_BYTES = 4 << 20
warm = decoder_from(open_tensors(Path(sys.argv[1])), "D", transposed=True).rows(0, 1)
before, peak[0] = anonymous(), 0
decoder = decoder_from(open_tensors(Path(sys.argv[2])), "D", transposed=True)
assert decoder.rows(70_000, 70_001)[0, 3] == 5
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_memory_is_that_of_a_chunk(tmp_path: Path, suffix: str) -> None:
    small, large = (tmp_path / f"{name}{suffix}" for name in ("small", "large"))
    write(small, torch.zeros(20_000, 512, dtype=torch.float16))  # starts what a chunk starts
    W = torch.zeros(200_000, 512, dtype=torch.float16)  # 205 MB
    W[70_000, 3] = 5
    write(large, W)
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < 10 * (4 << 20)  # three live, and what malloc keeps


def test_threads_that_ask_at_once_get_one_copy(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    W = torch.randn(500, 64)
    source = TransposedTensor(open_tensors(write(tmp_path / "W.pt", W)), "D")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: StoredDecoder(source).rows(i, i + 1), range(500)))
    assert torch.equal(torch.cat(parts), W)
    assert parts[1].data_ptr() - parts[0].data_ptr() == 64 * 4
