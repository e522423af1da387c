"""Safetensors files whose rows are written in any order, read by the library of that name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deltalens.storage.filled import filled_tensors
from deltalens.storage.tensor_header import Blank


def test_rows_in_any_order(tmp_path: Path) -> None:
    rows, numbers = torch.randn(7, 3), torch.arange(4)
    blanks = {
        "numbers": Blank((4,), torch.int64),
        "losses": Blank((2, 2), torch.float64),
        "rows": Blank((7, 3), torch.float32),
    }
    with filled_tensors(tmp_path / "file.safetensors", blanks) as file:
        file.put("rows", 5, rows[5:])
        file.put("numbers", 0, numbers)
        file.put("rows", 0, rows[:5])
        assert not list(tmp_path.glob("*.safetensors"))
    found = load_file(tmp_path / "file.safetensors")
    assert torch.equal(found["rows"], rows)
    assert torch.equal(found["numbers"], numbers)
    assert torch.equal(found["losses"], torch.zeros(2, 2, dtype=torch.float64))


def test_what_does_not_fit_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    blanks = {"rows": Blank((7, 3), torch.float32)}
    for rows in (torch.randn(2, 4), torch.randn(2, 3, dtype=torch.float64)):
        with (
            pytest.raises(AssertionError, match="rows"),
            filled_tensors(tmp_path / "file.safetensors", blanks) as file,
        ):
            file.put("rows", 0, rows)
    assert not list(tmp_path.iterdir())
