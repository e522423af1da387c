"""Texts to average over, streamed from a text file, JSON Lines or a run directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltalens.cost.dry_run import Work
from deltalens.cost.total import Cost
from deltalens.errors import InputError
from deltalens.pairs.read import PAIRS_FILE
from deltalens.pairs.row import Prompt, parse_messages, parse_prompt, with_system
from deltalens.pairs.row import as_chat as turned_to_chat
from deltalens.storage.jsonl import Row, open_binary, parse_lines

COUNTED_TOKENS = 5_000_000  # of texts, before a model reads them
PARAGRAPH_LIMIT = 1 << 16  # bytes after which a file without blank lines is cut, at a line's end


@dataclass(frozen=True)
class Texts:
    """The texts of one file: iterate as often as needed, nothing is kept in memory."""

    path: Path
    as_chat: bool = False

    def __iter__(self) -> Iterator[Prompt]:
        if self.path.suffix in (".jsonl", ".json"):
            return parse_lines(self.path, lambda row: _parse_text(row, self.as_chat))
        return _paragraphs(self.path)

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        with open_binary(self.path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        digest.update(b"as chat" if self.as_chat else b"")
        return digest.hexdigest()


def reading_work(
    texts: Iterable[Prompt],
    parts: Callable[[], Iterable[tuple[int, bool]]],
    limit: int | None,
    processes: int = 1,
) -> Work:
    """Of a model that reads some of ``texts`` once, for at most ``limit`` tokens in all processes.

    parts: of each part of the texts its tokens, and whether this process is to read it. They are
    counted by making them, unless texts can be read but once or the count comes to
    :data:`COUNTED_TOKENS`, where they are those at least.
    """
    share = None if limit is None else -(-limit // processes)
    if not isinstance(texts, Texts | Sequence):
        return Work(Cost(forward=share or 0), tokens=share or 0, most=True)
    made = own = 0
    for tokens, mine in parts():
        made += tokens
        own += tokens if mine else 0
        if made >= COUNTED_TOKENS:
            break
    if made < COUNTED_TOKENS:
        return Work(Cost(forward=own), tokens=own)
    if share is not None:
        return Work(Cost(forward=share), tokens=share, most=True)
    sentence = f"To do: more than {own:,} tokens forward; max_tokens would say how many."
    return Work(Cost(forward=own), sentence=sentence)


def read_texts(path: str | Path, *, as_chat: bool = False) -> Texts:
    """The texts at ``path``.

    A ``.jsonl`` (or ``.json``) file has one object a line with ``text``, with ``messages``, or
    with a pair's ``prompt`` (with ``as_chat`` one that is text is what a user says) and optionally
    its ``system`` message; a run directory stands for its pairs' prompts; any other file is
    UTF-8 text whose paragraphs (separated by blank lines) are the texts. Raises
    :class:`InputError` with the line number for a bad row, when the row is reached.
    """
    path = Path(path)
    texts = Texts(path / PAIRS_FILE if path.is_dir() else path, as_chat)
    open_binary(texts.path).close()
    return texts


def _parse_text(row: Row, as_chat: bool) -> Prompt:
    if isinstance(row.get("text"), str):
        return row["text"]
    if "messages" in row and "prompt" not in row:
        return with_system(parse_messages(row["messages"], "messages"), row)
    if "prompt" in row:
        prompt = parse_prompt(row, "prompt")
        return turned_to_chat(prompt) if as_chat else prompt
    raise InputError(
        f"no field 'text', 'messages' or 'prompt' (fields: {', '.join(row) or 'none'})"
    )


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, start=1):
            line = _decode(raw, path, number)
            if lines and (not line.strip() or size > PARAGRAPH_LIMIT):
                yield "".join(lines).strip()
                lines, size = [], 0
            if line.strip():
                lines.append(line)
                size += len(raw)
    if lines:
        yield "".join(lines).strip()


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x}); convert the file"
        ) from error
