"""Replies kept on disk, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from deltalens.errors import InputError
from deltalens.judge.chat import ChatModel, ChatReply, ChatRequest

CACHE_FILE = "replies.sqlite"
_WAIT = 60.0  # seconds for another process's transaction


class ReplyCache:
    """Replies in one SQLite file of ``directory``, shared by any number of processes.

    Every reply is committed as it comes, so a killed process loses those under way only. Requests
    are kept as hashes, with the model's name and address; of replies the text and the numbers'
    probabilities, but none that lacks those asked for.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / CACHE_FILE

    def complete(
        self, chat: ChatModel, requests: Sequence[ChatRequest], *, version: str
    ) -> Iterator[tuple[int, ChatReply]]:
        """As ``chat.complete``, of which it asks what it has not answered before.

        ``version`` says what the replies are for: those of another are not used. Equal requests
        are sent once. Raises :class:`InputError` when the file cannot be used.
        """
        places: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            places.setdefault(_key(chat, version, request), []).append(number)
        try:
            yield from self._complete(chat, requests, places)
        except sqlite3.Error as error:
            raise InputError(
                f"cannot use {self.path}: {error}; check the directory, or delete the file"
            ) from error

    def _complete(
        self, chat: ChatModel, requests: Sequence[ChatRequest], places: dict[str, list[int]]
    ) -> Iterator[tuple[int, ChatReply]]:
        with closing(self._open()) as store:
            unknown = []
            for key, numbers in places.items():
                reply = _find(store, key)
                if reply is None:
                    unknown.append(key)
                    continue
                chat.usage.cached += len(numbers)
                yield from ((number, reply) for number in numbers)
            for index, reply in chat.complete([requests[places[key][0]] for key in unknown]):
                numbers = places[unknown[index]]
                if reply.numbers is not None or not requests[numbers[0]].numbers:
                    _keep(store, unknown[index], reply)
                chat.usage.cached += len(numbers) - 1
                yield from ((number, reply) for number in numbers)

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write into {self.path.parent}: {error.strerror}; choose another place"
            ) from error
        store = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        store.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)")
        return store


def _key(chat: ChatModel, version: str, request: ChatRequest) -> str:
    asked = [chat.name, chat.address, version, asdict(request)]
    parts = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()


def _find(store: sqlite3.Connection, key: str) -> ChatReply | None:
    row = store.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    try:
        kept = json.loads(row[0])
        numbers = kept["numbers"]
        pairs = None if numbers is None else [(int(number), float(p)) for number, p in numbers]
        return ChatReply(kept["text"], pairs) if isinstance(kept["text"], str) else None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):  # damaged: ask again
        return None


def _keep(store: sqlite3.Connection, key: str, reply: ChatReply) -> None:
    store.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))


def ask(
    chat: ChatModel, requests: Sequence[ChatRequest], cache: ReplyCache | None, version: str
) -> Iterator[tuple[int, ChatReply]]:
    """The replies to ``requests``, through ``cache`` where there is one."""
    if cache is None:
        return chat.complete(requests)
    return cache.complete(chat, requests, version=version)
