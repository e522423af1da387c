"""Containers against the arrays that other libraries wrote into them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae.files import OPENERS, open_tensors
from deltalens.sae.stored import StoredDecoder

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
Writer = Callable[[Path, dict[str, Tensor]], None]


def write_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})


def write_npy(path: Path, tensors: dict[str, Tensor]) -> None:
    np.save(path, tensors[path.stem].numpy())


WRITERS: dict[str, Writer] = {
    ".safetensors": lambda path, tensors: safetensors.torch.save_file(tensors, path),
    ".npz": write_npz,
    ".npy": write_npy,
    ".pt": lambda path, tensors: torch.save(tensors, path),
}


def written(directory: Path, suffix: str, tensors: dict[str, Tensor]) -> Path:
    path = directory / f"W{suffix}"
    WRITERS[suffix](path, tensors)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        open_tensors(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("suffix", list(WRITERS))
def test_rows_equal_what_was_written(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and suffix in (".npy", ".npz"):
        pytest.skip("NumPy has no bfloat16")
    W = torch.randn(131, 37).to(dtype)
    file = open_tensors(written(tmp_path, suffix, {"W": W, "bias": torch.arange(5.0)}))
    stored = file.get("W")
    assert stored.dtype == dtype
    for start, stop in [(0, 131), (0, 1), (7, 50), (130, 131)]:
        assert torch.equal(stored.rows(start, stop), W[start:stop])
        assert torch.equal(stored.T.rows(start % 37, 37), W.T[start % 37 :])
    assert stored.read().dtype == dtype
    assert torch.equal(stored.read(), W)


@pytest.mark.parametrize("name_length", range(1, 9))
def test_npz_members_at_every_alignment(tmp_path: Path, name_length: int) -> None:
    W = torch.randn(20, 3, dtype=torch.float64)
    name = "W" * name_length
    np.savez(tmp_path / "W.npz", first=np.zeros(name_length, dtype=np.int8), **{name: W.numpy()})
    rows = open_tensors(tmp_path / "W.npz").get(name).rows(2, 17)
    assert torch.equal(rows, W[2:17])
    assert rows.data_ptr() % rows.element_size() == 0


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_in_fortran_order(tmp_path: Path, suffix: str) -> None:
    W = torch.randn(37, 131).T
    assert W.numpy().flags.f_contiguous
    stored = open_tensors(written(tmp_path, suffix, {"W": W})).get("W")
    assert torch.equal(stored.rows(5, 90), W[5:90])
    assert stored.rows(5, 90).is_contiguous()


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_small_tensors_of_other_kinds(tmp_path: Path, suffix: str) -> None:
    if suffix == ".npy":
        pytest.skip("holds one array")
    tensors = {"k": torch.tensor(32), "scale": torch.tensor(0.5), "alive": torch.tensor([True])}
    file = open_tensors(written(tmp_path, suffix, tensors))
    assert {name: stored.read() for name, stored in file.tensors.items()} == tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".pt"])
def test_aligned_rows_are_not_copied(tmp_path: Path, suffix: str) -> None:
    stored = open_tensors(written(tmp_path, suffix, {"W": torch.randn(9, 4)})).get("W")
    assert stored.rows(0, 9)[3:].data_ptr() == stored.rows(3, 9).data_ptr()


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_writing_to_rows_never_reaches_the_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, {"W": torch.ones(9, 4)})
    before = path.read_bytes()
    open_tensors(path).get("W").rows(0, 9).zero_()
    assert path.read_bytes() == before


def test_the_decoder_rounds_float64_rows(tmp_path: Path) -> None:
    W = torch.randn(20, 3, dtype=torch.float64)
    decoder = StoredDecoder(open_tensors(written(tmp_path, ".npy", {"W": W})).get("W"))
    assert decoder.dtype == torch.float32
    assert torch.equal(decoder.rows(4, 9), W[4:9].float())


def test_an_absent_tensor_lists_those_there_are(tmp_path: Path) -> None:
    file = open_tensors(written(tmp_path, ".npz", {"W": torch.zeros(3, 2)}))
    with pytest.raises(InputError, match=r"no tensor 'b_dec'; it has W \[3, 2\]"):
        file.get("b_dec")


@pytest.mark.parametrize("suffix", list(OPENERS))
@pytest.mark.parametrize("content", [b"", b"\0", b"not a checkpoint at all", os.urandom(4096)])
def test_foreign_content_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"W{suffix}"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_every_truncation_is_refused(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, {"W": torch.randn(40, 25)})
    content = path.read_bytes()
    for size in {*range(0, len(content), 97), len(content) // 2, len(content) - 1}:
        path.write_bytes(content[:size])
        refused(path)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_damage_gives_nothing_but_input_errors(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, {"W": torch.randn(3, 2)})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refusals = 0
    for position, value in zip(rng.integers(0, len(content), 300), rng.bytes(300), strict=True):
        path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        try:
            open_tensors(path)
        except InputError:
            refusals += 1
    assert refusals > 0


def test_a_compressed_npz_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "W.npz"
    np.savez_compressed(path, W=np.zeros((3, 2)))
    assert "save it again with numpy.savez" in refused(path)


def test_safetensors_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "W.safetensors"
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for change in [
        {"shape": [2, 3]},
        {"data_offsets": [0, 12]},
        {"data_offsets": [-4, 12]},
        {"data_offsets": [4, 20]},
        {"shape": [-2, -2]},
        {"shape": "square"},
        {"dtype": "F8_E4M3"},
    ]:
        header = json.dumps({"W": {**entry, **change}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        refused(path)


class TouchOnLoad:
    """A pickle that creates a file when it is loaded trustingly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_pickle_of_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "ae.pt"
    torch.save({"W": torch.zeros(2, 2), "x": TouchOnLoad(victim)}, path)
    assert "pickles more than tensors (posix.mkdir)" in refused(path)
    path.write_bytes(pickle.dumps(TouchOnLoad(victim)))
    refused(path)
    np.savez(tmp_path / "W.npz", W=np.array([TouchOnLoad(victim)], dtype=object))
    assert "dtype object" in refused(tmp_path / "W.npz")
    assert not victim.exists()
    pickle.loads(pickle.dumps(TouchOnLoad(victim)))
    assert victim.exists()


def test_a_zip_that_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(path)
    torch.save([torch.zeros(2)], path)
    assert "holds a list" in refused(path)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sae.bin"
    path.write_bytes(b"x")
    assert "not one of the readable files" in refused(path)


MEASURE = """
import json, sys
from pathlib import Path
from deltalens.sae.files import open_tensors

def resident():  # current and peak, bytes
    lines = Path("/proc/self/status").read_text().splitlines()
    return [int(l.split()[1]) * 1024 for key in ("VmRSS", "VmHWM") for l in lines if key in l]

open_tensors(Path(sys.argv[1])).get("W").rows(0, 10)
risen = {}
for name in sys.argv[2:]:
    before = resident()
    stored = open_tensors(Path(name)).get("W")
    middle = stored.shape[0] // 2
    assert stored.rows(middle, middle + 64).count_nonzero() == 0
    risen[name] = max(after - start for after, start in zip(resident(), before))
print(json.dumps(risen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_slice_of_a_large_file_takes_the_memory_of_the_slice(tmp_path: Path) -> None:
    n, d = 100_000, 1024  # 410 MB
    header = json.dumps({"W": {"dtype": "F32", "shape": [n, d], "data_offsets": [0, 4 * n * d]}})
    with (tmp_path / "W.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + 4 * n * d)
    with (tmp_path / "W.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
        )
        file.truncate(file.tell() + 4 * n * d)
    with torch.serialization.skip_data():
        torch.save({"W": torch.empty(n, d)}, tmp_path / "W.pt")
    np.savez(tmp_path / "W.npz", W=np.zeros((n // 4, d), dtype=np.float32))

    warm_up = tmp_path / "warm_up.pt"
    torch.save({"W": torch.zeros(10, 2)}, warm_up)
    files = [str(tmp_path / f"W{suffix}") for suffix in WRITERS]
    command = [sys.executable, "-c", MEASURE, str(warm_up), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    risen = json.loads(done.stdout)
    assert set(risen) == set(files)
    assert max(risen.values()) < 4 * 2**20, risen
