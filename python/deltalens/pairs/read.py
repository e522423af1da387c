"""Pairs of completions on disk: JSON Lines in, JSON Lines out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from deltalens.errors import InputError, quoted
from deltalens.lm import Pair
from deltalens.pairs.row import PairFields, parse_pair
from deltalens.storage.atomic import write_text
from deltalens.storage.jsonl import Row, parse_lines

PAIRS_FILE = "pairs.jsonl"
_WEIGHTS = ("positive_weights", "negative_weights")


def read_pairs(
    path: str | Path,
    *,
    prompt_field: str | None = None,
    positive: str = "positive",
    negative: str = "negative",
    as_chat: bool = False,
) -> list[Pair]:
    """The pairs in a JSONL file, or in a run directory's ``pairs.jsonl``.

    A row has ``prompt`` (text, role/content messages or token ids) or ``messages``, the two
    completions (text, token ids or one assistant message) and optionally ``id``. Preference
    data is read by naming the roles: ``positive="rejected", negative="chosen"``; there the
    completions may also be whole conversations (or ``\\n\\nAssistant:`` transcripts) that share
    their prompt, and a ``prompt`` repeated beside whole conversations is not used. A ``system``
    field is put before the prompt as its system message. A prompt that is text is continued as it
    stands, or, with ``as_chat``, is what a user says. ``positive_ids``, ``negative_ids``,
    ``prompt_ids``, ``tokenizer``, ``positive_weights``, ``negative_weights``, ``negative_prompt``
    and ``alignment`` are a pair's of these names; ``clean_prefix``, ``clean_answer``,
    ``patch_prefix`` and ``patch_answer`` are a pair too.

    Raises :class:`InputError` with the file's name and line number for every bad row.
    """
    path = Path(path)
    path = path / PAIRS_FILE if path.is_dir() else path
    fields = PairFields(prompt_field, positive, negative, as_chat)
    seen: set[str] = set()

    def parse(row: Row) -> Pair:
        pair = parse_pair(row, fields)
        if pair.id in seen:
            raise InputError(f"id {quoted(pair.id)} occurs twice; ids must be unique")
        seen.update(() if pair.id is None else (pair.id,))
        return pair

    pairs = list(parse_lines(path, parse))
    if not pairs:
        raise InputError(f"{path} holds no pairs; write one JSON object per line")
    return pairs


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """``pairs`` as a JSONL file that :func:`read_pairs` reads back unchanged."""
    lines = [json.dumps(_row(pair), ensure_ascii=False) + "\n" for pair in pairs]
    write_text(Path(path), "".join(lines))


def _row(pair: Pair) -> Row:
    row: Row = {} if pair.id is None else {"id": pair.id}
    texts = {"prompt": pair.prompt, "positive": pair.positive, "negative": pair.negative}
    ids = ("positive_ids", "negative_ids", "prompt_ids", "tokenizer")
    kept = ("negative_prompt", "alignment", *ids, *_WEIGHTS)
    more = {name: getattr(pair, name) for name in kept if getattr(pair, name) is not None}
    return row | texts | more
