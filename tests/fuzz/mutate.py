"""Files as nobody wrote them: one that is sound, changed in a few places."""

from __future__ import annotations

import io
import json
import random
import zipfile

NASTY = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"false"),
    *(b"9" * 30, b"9" * 400, b"9" * 5000, b"1e308", b"5e-324", b'""', b"[]", b"{}", b"[[]]"),
    *(b'"\\ud800"', b'"\\u0000"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\x9b31m"),
    *("\u202e".encode(), "é漢".encode(), b"\n", b"\r\n", b",", b'"', b":", b"[" * 200, b"{" * 200),
    *(b"&a [*a]", b"*a", b"!!python/object:os.system", b"<<: *a", b"=1+1", b"'", b"\\"),
]
EDGES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63)
VALUES = (None, True, False, 0, -1, 1 << 63, 1 << 70, 1.5, 1e308, "", "x", "\x1b[2J", [], [1], {})
MOST_CHANGES = 4


def mutated(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """``content`` of a file with this suffix, changed; sometimes within its container only."""
    if rng.random() < 0.6:
        inside = _INSIDE.get(suffix, _inside_json)(content, rng)
        if inside is not None:
            return inside
    return _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, MOST_CHANGES)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 1, 2, 4, 8, 40)))
        rng.choice(_STEPS)(changed, at, end, rng)
    return bytes(changed)


def _flip(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    if at < len(changed):
        changed[at] ^= 1 << rng.randrange(8)


def _remove(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    del changed[at:end]


def _cut(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    del changed[at:]


def _double(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    changed[at:at] = changed[at:end]


def _write(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    changed[at : end if rng.random() < 0.5 else at] = rng.choice(NASTY)


def _edge(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    changed[at : at + size] = (rng.choice(EDGES) % (1 << 8 * size)).to_bytes(size, "little")


def _digits(changed: bytearray, at: int, end: int, rng: random.Random) -> None:
    digits = [
        place for place in range(at, min(len(changed), at + 400)) if 48 <= changed[place] < 58
    ]
    if digits:
        changed[digits[0] : digits[0] + 1] = str(rng.choice(EDGES)).encode()


_STEPS = (_flip, _flip, _remove, _cut, _double, _write, _write, _edge, _digits)


def _inside_zip(content: bytes, rng: random.Random) -> bytes | None:
    """The archive written again, sound in itself, with one record changed, renamed or left out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(records))
    kept = records.pop(chosen)
    action = rng.random()
    if action < 0.7:
        records[chosen] = _bytes(kept, rng)
    elif action < 0.9:
        records[_bytes(chosen.encode(), rng).decode("latin1") or "x"] = kept
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, part in records.items():
            archive.writestr(zipfile.ZipInfo(name[:60000]), part, method)
    return stream.getvalue()


def _inside_safetensors(content: bytes, rng: random.Random) -> bytes | None:
    """With another header, of the length that it says."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end]
    header = _inside_json(header, rng) or _bytes(header, rng)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _inside_json(content: bytes, rng: random.Random) -> bytes | None:
    """One value of a JSON document, or of one of its lines, replaced, removed or renamed."""
    lines = content.split(b"\n")
    chosen = rng.randrange(len(lines)) if len(lines) < 100 else 0
    whole = rng.random() < 0.5
    try:
        document = json.loads(content if whole else lines[chosen])
    except ValueError:
        return None
    changed = json.dumps(_changed(document, rng)).encode()
    if whole:
        return changed
    lines[chosen] = changed
    return b"\n".join(lines)


def _changed(value: object, rng: random.Random) -> object:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(VALUES)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        item = [] if rng.random() < 0.2 else [_changed(value[at], rng)]
        return [*value[:at], *item, *value[at + 1 :]]
    key = rng.choice(list(value))
    rest = {name: item for name, item in value.items() if name != key}
    action = rng.random()
    if action < 0.15:
        return rest
    if action < 0.25:
        return {**rest, rng.choice(("x", "", "\x1b", key + key)): value[key]}
    return {**value, key: _changed(value[key], rng)}


_INSIDE = {
    ".pt": _inside_zip,
    ".npz": _inside_zip,
    ".safetensors": _inside_safetensors,
    ".npy": lambda content, rng: None,
}
