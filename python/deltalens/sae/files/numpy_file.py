"""NumPy's containers: .npy (a header and the bytes) and .npz (a zip of .npy members)."""

from __future__ import annotations

import io
import mmap
import zipfile
from pathlib import Path

import numpy as np
import torch

from deltalens.errors import InputError
from deltalens.sae.files.mapped import map_file, mapped_tensor
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
ZIP_LOCAL_HEADER = 30  # bytes before the member's name; lengths of name and extra at 26 and 28


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
    members = _members(path)
    memory = map_file(path)
    return TensorFile(
        path,
        {member.filename.removesuffix(".npy"): _member(path, memory, member) for member in members},
    )


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: not an .npz file, or truncated: {error}") from None
    return [member for member in members if member.filename.endswith(".npy")]


def _member(path: Path, memory: mmap.mmap, member: zipfile.ZipInfo) -> StoredTensor:
    if member.compress_type != zipfile.ZIP_STORED:
        raise InputError(
            f"{path}: {member.filename!r} is compressed, so no part of it can be read alone; "
            "save it again with numpy.savez"
        )
    local = member.header_offset
    lengths = memory[local + 26 : local + ZIP_LOCAL_HEADER]
    name, extra = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    start = local + ZIP_LOCAL_HEADER + name + extra
    try:
        return _array_at(memory, start, start + member.file_size)
    except InputError as error:
        raise InputError(f"{path}: {member.filename!r}: {error}") from None


def _array_at(memory: mmap.mmap, offset: int, end: int) -> StoredTensor:
    stream = io.BytesIO(memory[offset : offset + LONGEST_HEADER])
    try:
        read_header = HEADER_READERS[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy tries several parsers, each with errors of its own
        reason = str(error).partition("\n")[0]
        raise InputError(f"not an array in NumPy's format, or truncated ({reason})") from None
    if dtype.str not in DTYPES:
        raise InputError(f"an array of dtype {dtype}, which is not supported")
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
