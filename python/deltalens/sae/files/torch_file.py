"""The container of torch.save, read without running anything that it may hold."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltalens.errors import InputError, quoted
from deltalens.sae.files.mapped import map_file, strided_tensor
from deltalens.sae.files.pickled_state import Strided, Unread, read_state
from deltalens.sae.files.zip_records import Record, stored_records
from deltalens.sae.pages import MappedFile
from deltalens.sae.stored import StoredTensor, TensorFile

LONGEST_PICKLE = 64 << 20
BITS: dict[torch.dtype, str] = {
    torch.float64: "<f8",
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.bfloat16: "<i2",
    torch.int64: "<i8",
    torch.int32: "<i4",
    torch.int16: "<i2",
    torch.int8: "i1",
    torch.uint8: "u1",
    torch.bool: "?",
}

Records = dict[str, Record]


def open_torch(path: Path) -> TensorFile:
    """The tensors of a state dict written by torch.save, mapped, and the plain values beside them.

    Tensors of other kinds (sparse, nested, quantised, conjugate views) are :class:`InputError`, as
    are files that are truncated, foreign, compressed, from before torch 1.6, or that hold pickled
    objects other than tensors and plain containers.
    """
    memory = map_file(path)
    try:
        records = _records(path, memory)
        state = read_state(_content(memory, records["data.pkl"]))
        _check_one_dtype(state)
        tensors = {
            str(name): _stored(memory, records, str(name), value)
            for name, value in state.items()
            if isinstance(value, Strided | Unread)
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    values = {
        str(name): value for name, value in state.items() if not isinstance(value, Strided | Unread)
    }
    return TensorFile(path, tensors, values)


def _records(path: Path, memory: MappedFile) -> Records:
    """By their names within the archive; all but tensors' bytes are held against checksums."""
    if memory[:2] != b"PK":
        raise InputError("truncated, or not written by torch.save (1.6 or later)")
    try:
        found = stored_records(path)
    except InputError as error:
        raise InputError(
            f"not a readable torch file: {error}; save it again with torch.save"
        ) from None
    folders = {name.partition("/")[0] for name in found}
    records = {name.partition("/")[2]: record for name, record in found.items()}
    if len(folders) != 1 or "data.pkl" not in records:
        raise InputError("not a readable torch file: it has no data.pkl")
    rest = [record for name, record in records.items() if not name.startswith("data/")]
    if sum(record.size for record in rest) > LONGEST_PICKLE:
        raise InputError("not a readable torch file: what is no tensor in it is over 64 MiB")
    if any(zlib.crc32(_content(memory, record)) != record.checksum for record in rest):
        raise InputError("not a readable torch file: a checksum in it is wrong")
    if "byteorder" in records and _content(memory, records["byteorder"]) != b"little":
        raise InputError("its numbers are not little-endian; save it on another machine")
    return records


def _content(memory: MappedFile, record: Record) -> bytes:
    return memory[record.start : record.start + record.size]


def _check_one_dtype(state: dict[Any, Any]) -> None:
    """Of the numbers in each record: torch takes those of the first tensor for all."""
    found: dict[str, torch.dtype] = {}
    for tensor in state.values():
        if isinstance(tensor, Strided):
            dtype = found.setdefault(tensor.storage.key, tensor.storage.dtype)
            if dtype != tensor.storage.dtype:
                raise InputError("damaged: tensors of two dtypes have the same bytes")


def _stored(
    memory: MappedFile, records: Records, name: str, tensor: Strided | Unread
) -> StoredTensor:
    what = quoted(name)
    if isinstance(tensor, Unread):
        raise InputError(f"{what} is {tensor.reason}, which is not read; save it as a plain tensor")
    bits = np.dtype(BITS[tensor.storage.dtype])
    record = records.get(f"data/{tensor.storage.key}")
    if record is None or record.size != tensor.storage.numbers * bits.itemsize:
        raise InputError(f"damaged: the bytes of {what} are missing or of another size")
    return strided_tensor(
        memory,
        what=what,
        span=(record.start, record.size),
        first=tensor.start,
        shape=tensor.shape,
        strides=tensor.strides,
        bits=bits,
        dtype=tensor.storage.dtype,
    )
