from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from deltalens.sae import load_sae
from deltalens.sae.fingerprint import fingerprint


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_equals_sha256_of_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(size))
    assert fingerprint(path) == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_of_a_loaded_sae(tmp_path: Path) -> None:
    path = tmp_path / "W.npy"
    np.save(path, np.zeros((3, 2), dtype=np.float32))
    expected = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert load_sae(path).fingerprint == expected


class TestLargeFiles:
    SIZE = 2**30 + 12_345

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "weights"
        with path.open("wb") as file:
            file.truncate(self.SIZE)
        return path

    def change(self, path: Path, position: int) -> None:
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"x")

    def test_samples_are_as_documented(self, path: Path) -> None:
        self.change(path, self.SIZE - 1)
        digest = hashlib.sha256(str(self.SIZE).encode())
        digest.update(bytes(128 * 2**20 - 1) + b"x")
        assert fingerprint(path) == f"sha256-sampled:{digest.hexdigest()}"

    def test_head_tail_middle_and_size_count(self, path: Path) -> None:
        seen = {fingerprint(path)}
        middle = 64 * (self.SIZE - 2**20) // 127
        for position in (0, self.SIZE - 1, middle):
            self.change(path, position)
            seen.add(fingerprint(path))
        os.truncate(path, self.SIZE + 1)
        seen.add(fingerprint(path))
        assert len(seen) == 5
