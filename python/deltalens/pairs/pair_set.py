"""Pairs with their grades, and the two files they are kept in."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.pairs.answer import verdict_row
from deltalens.pairs.build import GradedPair, PairCounts
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.jsonl import Row
from deltalens.version import __version__


@dataclass(frozen=True)
class PairSet:
    """The pairs of graded answers.

    graded: every pair with both verdicts; counts: what became of all answers and prompts;
    settings: what they were made of and how.
    """

    graded: list[GradedPair]
    counts: PairCounts
    settings: dict[str, Any]

    @property
    def pairs(self) -> list[Pair]:
        """As :func:`deltalens.attribute` takes them."""
        return [
            Pair(
                item.positive.question.prompt,
                item.positive.text,
                item.negative.text,
                id=item.id,
                **_sampled(item),
            )
            for item in self.graded
        ]

    def save(self, path: str | Path) -> None:
        """Write the pairs, which :func:`deltalens.read_pairs` reads, and beside them settings and
        counts. :class:`InputError` when the file holds pairs that were not made this way."""
        path = Path(path)
        check_out(path, self.settings["source"])
        write_settings(path, {**self.settings, "counts": asdict(self.counts)})
        lines = [json.dumps(pair_row(item), ensure_ascii=False) + "\n" for item in self.graded]
        write_text(path, "".join(lines))


def pair_row(item: GradedPair) -> Row:
    """A line of the pairs file."""
    sides = {"positive": item.positive, "negative": item.negative}
    return {
        "id": item.id,
        "question_id": item.positive.question.id,
        "prompt": item.positive.question.prompt,
        **{name: answer.text for name, answer in sides.items()},
        **_sampled(item),
        "grades": {name: verdict_row(answer.verdict) for name, answer in sides.items()},
        "origins": {name: dict(answer.origin) for name, answer in sides.items()},
    }


def _sampled(item: GradedPair) -> dict[str, Any]:
    """The ids of both answers, as a pair and its line have them, and of a prompt that is theirs."""
    positive, negative = item.positive.ids, item.negative.ids
    if positive is None or negative is None or positive.tokenizer != negative.tokenizer:
        return {}
    ids = {"positive_ids": positive.answer, "negative_ids": negative.answer}
    same = {"prompt_ids": positive.prompt} if positive.prompt == negative.prompt else {}
    return {**ids, **same, "tokenizer": positive.tokenizer}


def settings_path(out: Path) -> Path:
    """Where the settings and counts of a pairs file are: beside it."""
    return out.with_name(f"{out.stem}.meta.json")


def write_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Write them, with what wrote them, whole or not at all."""
    made = {
        "version": __version__,
        "command": sys.argv,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    text = json.dumps({**settings, **made}, indent=2, ensure_ascii=False)
    write_text(settings_path(out), text + "\n")


def read_settings(out: Path) -> dict[str, Any]:
    """What :func:`write_settings` wrote; empty where there is nothing."""
    path = settings_path(out)
    if not path.exists():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); choose another --out") from error


def check_out(out: Path, source: str) -> None:
    """Raise :class:`InputError` where ``out`` holds what must not be overwritten."""
    there = read_settings(out).get("source")
    if out.is_dir():
        raise InputError(f"{out} is a directory; give the file to write, such as {out}/pairs.jsonl")
    if there is None and out.exists():
        raise InputError(
            f"{out} exists and was not made by `deltalens pairs`; choose another --out"
        )
    if there not in (None, source):
        raise InputError(f"{out} holds {there} pairs, here {source} ones; choose another --out")


def check_any(found: PairSet) -> None:
    """Raise :class:`InputError`, saying what was found, where no pair could be made."""
    if found.graded:
        return
    counts = found.counts
    answers = ", ".join(f"{count} {name}" for name, count in counts.answers.items() if count)
    prompts = ", ".join(f"{count} {name}" for name, count in counts.prompts.items() if count)
    raise InputError(
        f"no pairs: no prompt has enough answers of both kinds (answers: {answers or 'none'}; "
        f"prompts: {prompts or 'none'}); sample more, or ask for fewer pairs of each prompt"
    )
