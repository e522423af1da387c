"""The first bytes of a safetensors file, which say what lies behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import torch

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Blank(NamedTuple):
    """A tensor to be filled: its shape and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def tensor_header(blanks: Mapping[str, Blank], metadata: Mapping[str, str] | None = None) -> bytes:
    """The header of a file in which these tensors follow each other."""
    header: dict[str, object] = {} if not metadata else {"__metadata__": dict(metadata)}
    end = 0
    for name, blank in blanks.items():
        start, end = end, end + blank.nbytes
        said = {"dtype": _NAMES[blank.dtype], "shape": blank.shape}
        header[name] = {**said, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
