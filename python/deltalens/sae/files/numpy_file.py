"""NumPy's containers: .npy (a header and the bytes) and .npz (a zip of .npy members)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from deltalens.errors import InputError, quoted
from deltalens.sae.files.mapped import map_file, mapped_tensor
from deltalens.sae.files.zip_records import Record, stored_records
from deltalens.sae.pages import MappedFile
from deltalens.sae.stored import StoredTensor, TensorFile

DTYPES = {
    "<f8": torch.float64,
    "<f4": torch.float32,
    "<f2": torch.float16,
    "<i8": torch.int64,
    "<i4": torch.int32,
    "<i2": torch.int16,
    "|i1": torch.int8,
    "|u1": torch.uint8,
    "|b1": torch.bool,
}
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
LONGEST_HEADER = 64 * 1024


def open_npy(path: Path) -> TensorFile:
    """The one array of a .npy file, mapped, under the file's stem as its name."""
    memory = map_file(path)
    try:
        return TensorFile(path, {path.stem: _array_at(memory, 0, len(memory))})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def open_npz(path: Path) -> TensorFile:
    """The members of an uncompressed .npz file, each mapped where it lies in the zip.

    NumPy lets them lie at any byte, so the rows of most are copied, a slice at a time.

    A compressed member has no slice that could be read alone, so it is an :class:`InputError`.
    """
    memory = map_file(path)
    try:
        records = {
            name: record for name, record in stored_records(path).items() if name.endswith(".npy")
        }
        return TensorFile(
            path,
            {name.removesuffix(".npy"): _member(memory, name, at) for name, at in records.items()},
        )
    except InputError as error:
        raise InputError(f"{path}: {error}; save it again with numpy.savez") from None


def _member(memory: MappedFile, name: str, record: Record) -> StoredTensor:
    try:
        return _array_at(memory, record.start, record.start + record.size)
    except InputError as error:
        raise InputError(f"{quoted(name)}: {error}") from None


def _array_at(memory: MappedFile, offset: int, end: int) -> StoredTensor:
    stream = io.BytesIO(memory[offset : offset + LONGEST_HEADER])
    try:
        read_header = HEADER_READERS[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy tries several parsers, each with errors of its own
        reason = quoted(str(error).partition("\n")[0])[1:-1]
        raise InputError(f"not an array in NumPy's format, or truncated ({reason})") from None
    if dtype.str not in DTYPES:
        raise InputError(f"an array of dtype {quoted(str(dtype))[1:-1]}, which is not supported")
    start = offset + stream.tell()
    stored = mapped_tensor(
        memory,
        offset=start,
        shape=shape,
        bits=dtype,
        dtype=DTYPES[dtype.str],
        order="F" if fortran else "C",
    )
    if start + stored.array.nbytes != end:
        raise InputError(f"damaged: an array ends at byte {start + stored.array.nbytes}, not {end}")
    return stored
