"""The container of torch.save, read without running anything that it may hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae.stored import StoredTensor, TensorFile

LOCAL_HEADER = 30  # bytes before a record's name; lengths of name and extra at 26 and 28
SIGNATURE = b"PK"  # of whatever follows a record
LONGEST_DESCRIPTOR = 24


def open_torch(path: Path) -> TensorFile:
    """The tensors of a state dict written by torch.save, mapped, and the plain values beside them.

    Raises :class:`InputError` for files that are truncated, foreign, from before torch 1.6, or
    that hold pickled objects other than tensors and plain containers.
    """
    state = _load(path)
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a dict of tensors")
    tensors = {str(name): _stored(path, value) for name, value in state.items() if _dense(value)}
    values = {str(name): value for name, value in state.items() if not isinstance(value, Tensor)}
    return TensorFile(path, tensors, values)


def _load(path: Path) -> Any:
    if not _is_zip(path):
        raise InputError(f"{path}: truncated, or not written by torch.save (1.6 or later)")
    _check_records(path)
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found.group(1)})" if found else ""
        raise InputError(
            f"{path}: refused: it pickles more than tensors{what}; save the state dict alone"
        ) from None
    except Exception as error:  # a damaged archive fails in many ways
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable torch file: {reason}") from None


def _check_records(path: Path) -> None:
    """Compare checksums of all but the tensors' own bytes, which torch.load leaves out."""
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if "/data/" not in record.filename:
                    archive.read(record)
            _check_places(path, archive)
    except Exception as error:  # a damaged archive fails in many ways
        raise InputError(f"{path}: not a readable torch file: {error}") from None


def _check_places(path: Path, archive: zipfile.ZipFile) -> None:
    """That each record ends where its descriptor or the next header begins."""
    records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    following = [*(record.header_offset for record in records[1:]), archive.start_dir]
    with path.open("rb") as file:
        for record, limit in zip(records, following, strict=True):
            file.seek(record.header_offset)
            header = file.read(LOCAL_HEADER)
            lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            end = record.header_offset + LOCAL_HEADER + sum(lengths) + record.compress_size
            file.seek(end)
            if not 0 <= limit - end <= LONGEST_DESCRIPTOR or file.read(2) != SIGNATURE:
                raise InputError(f"{record.filename} is not where its header says")


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _stored(path: Path, value: Tensor) -> StoredTensor:
    tensor = value.detach()
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    try:
        return StoredTensor(bits.numpy(), tensor.dtype)
    except TypeError:
        raise InputError(f"{path}: tensors of dtype {tensor.dtype} are not supported") from None
