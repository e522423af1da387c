"""Sampled answers and their verdicts beside a pairs file, appended as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from deltalens.cost.dry_run import is_dry
from deltalens.errors import InputError
from deltalens.judge import Verdict
from deltalens.lm.sampling.engine import EARLIER
from deltalens.pairs.answer import SampledIds, ids_row, read_ids, read_verdict, verdict_row
from deltalens.pairs.pair_set import check_out, read_settings, write_settings
from deltalens.pairs.questions import Question
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.jsonl import Row, parse_lines
from deltalens.storage.line_log import append_rows
from deltalens.storage.parts import fold_parts, part_path

SOURCE = "sampled"
_BEFORE = {"sees": "final", "engine": EARLIER}  # of files from before there was a choice

T = TypeVar("T")


class Sample(NamedTuple):
    """The sample numbered ``number`` from 0 of a question's prompt."""

    question: Question
    number: int

    @property
    def stream(self) -> int:
        """The number, below 2⁶⁴, of its stream of random numbers; it depends on nothing else, so
        more samples or other questions leave it as it is."""
        content = f"{self.question.key} {self.number}".encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class Text(NamedTuple):
    """What a model said, whole; cut: the limit of tokens ended it. ids: None in files of earlier
    versions."""

    text: str
    cut: bool
    ids: SampledIds | None = None


@dataclass
class AnswerLog:
    """What was sampled and graded for ``out``, by the numbers of the samples' random streams.

    Two files: the samples as the model gave them, so that they survive a judge that fails, and the
    graded answers, each complete on its line. Of several processes each appends to a part of its
    own.
    """

    out: Path
    ranks: Ranks = ALONE
    texts: dict[int, Text] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, settings: Mapping[str, Any], ranks: Ranks = ALONE) -> AnswerLog:
        """What is there already; :class:`InputError` when it was made with other settings."""
        check_out(out, SOURCE)
        log = cls(out, ranks)
        log._read()
        there = read_settings(out)
        parts = {"sampling": (log.texts, samples_path), "judge": (log.verdicts, answers_path)}
        for name, (found, path) in parts.items():
            if found:
                _check_same(path(out), there.get(name), settings[name])
        if not is_dry():
            ranks.from_first(lambda: write_settings(out, {"source": SOURCE, **settings}))
        return log

    def has(self, sample: Sample) -> bool:
        """Whether the sample is there, text and verdict."""
        return sample.stream in self.texts and sample.stream in self.verdicts

    def read_all(self) -> None:
        """Take in what the other processes have added; all are waited for."""
        self.ranks.meet()
        if self.ranks.size > 1:
            self._read()

    def add_texts(self, found: Sequence[tuple[Sample, Text]]) -> None:
        """Keep what was sampled."""
        append_rows(self._own(samples_path), (_row(sample, text) for sample, text in found))
        self.texts.update((sample.stream, text) for sample, text in found)

    def add_verdicts(self, found: Sequence[tuple[Sample, Verdict]]) -> None:
        """Keep grades of samples whose texts are known."""
        rows = (
            {**_row(sample, self.texts[sample.stream]), **verdict_row(verdict)}
            for sample, verdict in found
        )
        append_rows(self._own(answers_path), rows)
        self.verdicts.update((sample.stream, verdict) for sample, verdict in found)

    def _read(self) -> None:
        if not is_dry():
            self.ranks.alone_first(self._fold)
        for path in dict.fromkeys((samples_path(self.out), self._own(samples_path))):
            self.texts.update(_parsed(path, _text))
        for path in dict.fromkeys((answers_path(self.out), self._own(answers_path))):
            self.verdicts.update(_parsed(path, read_verdict))

    def _fold(self) -> None:
        fold_parts(samples_path(self.out))
        fold_parts(answers_path(self.out))

    def _own(self, place: Callable[[Path], Path]) -> Path:
        return part_path(place(self.out), self.ranks.part)


def samples_path(out: Path) -> Path:
    """What the model said, ungraded."""
    return out.with_name(f"{out.stem}.samples.jsonl")


def answers_path(out: Path) -> Path:
    """Every graded answer."""
    return out.with_name(f"{out.stem}.answers.jsonl")


def _row(sample: Sample, text: Text) -> Row:
    return {
        "question_id": sample.question.id,
        "prompt": sample.question.prompt,
        "sample": sample.number,
        "stream": sample.stream,
        "answer": text.text,
        "cut": text.cut,
        **ids_row(text.ids),
    }


def _text(row: Row) -> Text:
    if not isinstance(row.get("answer"), str) or not isinstance(row.get("cut"), bool):
        raise InputError("no record of a sample; choose another --out")
    return Text(row["answer"], row["cut"], read_ids(row))


def _parsed(path: Path, parse: Callable[[Row], T]) -> list[tuple[int, T]]:
    def numbered(row: Row) -> tuple[int, T]:
        if not isinstance(row.get("stream"), int):
            raise InputError("no record of a sample; choose another --out")
        return row["stream"], parse(row)

    return list(parse_lines(path, numbered, ended=True)) if path.exists() else []


def _check_same(path: Path, there: Any, here: Mapping[str, Any]) -> None:
    kept = {**_BEFORE, **(there if isinstance(there, dict) else {})}
    differing = [
        f"{name} ({kept.get(name)} there, {value} here)"
        for name, value in here.items()
        if kept.get(name) != value and name != "model"
    ]
    if differing:
        raise InputError(
            f"{path} was made with other settings: {', '.join(differing)}; choose another --out, "
            f"or delete it to make it again"
        )
