"""The safetensors container: 8 bytes of header length, a JSON header, the tensors' bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltalens.errors import InputError, quoted
from deltalens.sae.files.mapped import map_file, mapped_tensor
from deltalens.sae.pages import MappedFile
from deltalens.sae.stored import StoredTensor, TensorFile
from deltalens.storage.json_text import parse_json

DTYPES = {
    "F64": ("<f8", torch.float64),
    "F32": ("<f4", torch.float32),
    "F16": ("<f2", torch.float16),
    "BF16": ("<i2", torch.bfloat16),
    "I64": ("<i8", torch.int64),
    "I32": ("<i4", torch.int32),
    "I16": ("<i2", torch.int16),
    "I8": ("i1", torch.int8),
    "U8": ("u1", torch.uint8),
    "BOOL": ("?", torch.bool),
}
LENGTH_BYTES = 8


def open_safetensors(path: Path) -> TensorFile:
    """The tensors of a safetensors file, mapped. Raises :class:`InputError` for anything else."""
    memory = map_file(path)
    header, data_start = _header(path, memory)
    try:
        tensors = {
            name: _tensor(memory, data_start, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a valid safetensors header ({quoted(error)})") from None
    held = sum(stored.array.nbytes for stored in tensors.values())
    if held != len(memory) - data_start:
        raise InputError(
            f"{path}: truncated or damaged: its tensors are of {held} bytes, and "
            f"{len(memory) - data_start} follow the header"
        )
    return TensorFile(path, tensors)


def _header(path: Path, memory: MappedFile) -> tuple[dict[str, Any], int]:
    data_start = LENGTH_BYTES + int.from_bytes(memory[:LENGTH_BYTES], "little")
    if data_start > len(memory):
        raise InputError(
            f"{path}: not a safetensors file, or truncated: a header up to byte {data_start} in a "
            f"file of {len(memory)}"
        )
    try:
        header = parse_json(memory[LENGTH_BYTES:data_start])
    except InputError as error:
        raise InputError(f"{path}: not a safetensors file: its header is {error}") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a safetensors file: its header is no JSON object")
    said = header.get("__metadata__", {})
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise InputError(f"{path}: not a safetensors file: its metadata is no text")
    return header, data_start


def _tensor(memory: MappedFile, data_start: int, entry: dict[str, Any]) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise InputError(f"tensors of dtype {quoted(entry['dtype'])} are not supported")
    numpy_name, dtype = DTYPES[entry["dtype"]]
    begin, end = entry["data_offsets"]
    if not isinstance(entry["shape"], list):
        raise InputError(f"{quoted(entry['shape'])} is no shape")
    if type(begin) is not int or type(end) is not int:
        raise InputError(f"data_offsets {quoted((begin, end))} are no places")
    stored = mapped_tensor(
        memory,
        offset=data_start + begin,
        shape=tuple(entry["shape"]),
        bits=np.dtype(numpy_name),
        dtype=dtype,
    )
    if begin < 0 or stored.array.nbytes != end - begin:
        raise InputError(
            f"shape {quoted(entry['shape'])} does not fill data_offsets {quoted((begin, end))}"
        )
    return stored
