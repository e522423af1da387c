"""Where the stored members of a zip lie in its file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, NamedTuple

from deltalens.errors import InputError, quoted

LOCAL_HEADER = 30  # bytes before a member's name; lengths of name and extra at 26 and 28
SIGNATURE = b"PK"  # of whatever follows a member
LOCAL_SIGNATURE = b"PK\3\4"
LONGEST_DESCRIPTOR = 24
AS_FOLDER = 0x10  # of MS-DOS's attributes; torch leaves such a member's memory as it was
METHOD_AT, LENGTHS_AT = slice(8, 10), (26, 28)


class Record(NamedTuple):
    """A member's bytes: the ``size`` ones from ``start`` on."""

    start: int
    size: int
    checksum: int


def stored_records(path: Path) -> dict[str, Record]:
    """The members of ``path`` by name; nothing but headers is read.

    Raises :class:`InputError` without the path in front for what is no zip, and unless every member
    has a name of its own, is stored as it is, and lies where its header says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members, end = archive.infolist(), archive.start_dir
    except Exception as error:  # a damaged archive fails in many ways
        raise InputError(f"not a readable zip: {quoted(str(error))[1:-1]}") from None
    if not members:
        raise InputError("it has no records")
    members.sort(key=lambda member: member.header_offset)
    limits = [*(member.header_offset for member in members[1:]), end]
    with path.open("rb") as file:
        found = {
            member.filename: _record(file, member, limit)
            for member, limit in zip(members, limits, strict=True)
        }
    if len(found) != len(members):
        raise InputError("two of its records have one name")
    return found


def _record(file: IO[bytes], member: zipfile.ZipInfo, limit: int) -> Record:
    name = quoted(member.filename)
    if member.header_offset < 0:
        raise InputError(f"{name} is not where its header says")
    file.seek(member.header_offset)
    header = file.read(LOCAL_HEADER)
    methods = member.compress_type, int.from_bytes(header[METHOD_AT], "little")
    if methods != (zipfile.ZIP_STORED, zipfile.ZIP_STORED):
        raise InputError(f"{name} is compressed, so no part of it can be read alone")
    if member.flag_bits & 1:
        raise InputError(f"{name} is encrypted")
    if member.external_attr & AS_FOLDER:
        raise InputError(f"{name} is said to be a folder")
    lengths = [int.from_bytes(header[at : at + 2], "little") for at in LENGTHS_AT]
    named = file.read(lengths[0])
    start = member.header_offset + LOCAL_HEADER + sum(lengths)
    end = start + member.file_size
    file.seek(end)
    same = header[:4] == LOCAL_SIGNATURE and named in _names(member)
    placed = same and 0 <= limit - end <= LONGEST_DESCRIPTOR and file.read(2) == SIGNATURE
    if member.file_size != member.compress_size or not placed:
        raise InputError(f"{name} is not where its header says")
    return Record(start, member.file_size, member.CRC)


def _names(member: zipfile.ZipInfo) -> list[bytes]:
    """How a member's own header may spell its name."""
    return [member.orig_filename.encode(kind, "ignore") for kind in ("utf-8", "cp437")]
