"""Neutral texts read with every condition of an arm, as far as they have not been."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalens.cost.dry_run import is_dry
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget
from deltalens.lm.model.independence import check_readable
from deltalens.lm.points.side_by_side import side_by_side
from deltalens.lm.progress import Progress
from deltalens.lm.steering import SteerTokens
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.parts import fold_parts, part_path
from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.result import Direction
from deltalens.trials.side_effects.log import (
    Effects,
    TextAt,
    TextEffect,
    append_effects,
    effects_path,
    keep_texts,
    read_effects,
)
from deltalens.trials.side_effects.texts import NeutralTexts

_LINE = 64  # conditions of a text that are read, and written, together


@dataclass(frozen=True)
class Steered:
    """A model with what steering it takes."""

    model: Any
    treatment: Treatment
    tokens: SteerTokens


@dataclass(frozen=True)
class _Piece:
    text: int
    conditions: list[Condition]


@dataclass
class NeutralReading:
    """One arm's texts: what is on disk, and how the rest is found.

    Of several processes each reads some of them, and appends to a part of its own.
    """

    steered: Steered
    texts: NeutralTexts
    path: Path
    ranks: Ranks = ALONE
    batch_tokens: int = BATCH_TOKENS
    effects: Effects = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        steered: Steered,
        texts: NeutralTexts,
        run: Path,
        direction: Direction,
        ranks: Ranks = ALONE,
        batch_tokens: int = BATCH_TOKENS,
    ) -> NeutralReading:
        """With all that is on disk already."""
        found = cls(steered, texts, effects_path(run, direction), ranks, batch_tokens)
        found._read()
        return found

    def complete(self, conditions: Iterable[Condition], *, progress: bool) -> None:
        """Read every text with every condition."""
        check_readable(self.steered.model)
        pieces = self.ranks.share(list(self._pieces(conditions)), lambda piece: False)
        total = sum(len(piece.conditions) for piece in pieces)
        with Progress(progress, "neutral texts, steered", total) as bar:
            for piece, effects in self._found(pieces):
                append_effects(self._own, piece.text, piece.conditions, effects)
                bar.advance(len(effects))
        self.ranks.meet()
        self._read()

    def rehearsed(self, conditions: Iterable[Condition]) -> Iterator[object]:
        """As :meth:`complete`, of which nothing is kept."""
        check_readable(self.steered.model)
        yield from self._found(self._pieces(conditions))

    def tokens(self, conditions: Iterable[Condition]) -> int:
        """Those that are still to be read."""
        return sum(
            len(piece.conditions) * len(self.texts.ids[piece.text])
            for piece in self._pieces(conditions)
        )

    def _pieces(self, conditions: Iterable[Condition]) -> Iterator[_Piece]:
        """What is missing, text by text."""
        wanted = [condition for condition in dict.fromkeys(conditions) if condition != UNSTEERED]
        for text in range(len(self.texts.ids)):
            missing = [one for one in wanted if TextAt(one, text) not in self.effects]
            for start in range(0, len(missing), _LINE):
                yield _Piece(text, missing[start : start + _LINE])

    def _found(self, pieces: Iterable[_Piece]) -> Iterator[tuple[_Piece, list[TextEffect]]]:
        budget = TokenBudget(self.batch_tokens)
        # A text's first token stands for the prompt where only generated ones are steered.
        start = 1 if self.steered.tokens == "generated" else 0
        for piece in pieces:
            ids = self.texts.ids[piece.text]
            readings = side_by_side(
                self.steered.model,
                ids,
                self.steered.treatment.edits(piece.conditions),
                site=self.steered.treatment.site,
                start=start,
                budget=budget,
                label=f"neutral text {piece.text}",
            )
            yield piece, [TextEffect(*reading, tokens=len(ids) - 1) for reading in readings]

    def _read(self) -> None:
        """Take in all that is on disk, but parts to which others may be appending."""
        if not is_dry():
            self.ranks.alone_first(lambda: fold_parts(self.path))
        for path in dict.fromkeys((self.path, self._own)):
            self.effects.update(read_effects(path))

    @property
    def _own(self) -> Path:
        return part_path(self.path, self.ranks.part)


def neutral_readings(
    run: Path,
    texts: NeutralTexts,
    steered: Mapping[Direction, Steered],
    *,
    ranks: Ranks = ALONE,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[Direction, NeutralReading]:
    """Of every arm; :class:`InputError` where other texts have been read before."""
    wanted = {"texts": len(texts.ids), "tokens": texts.tokens, "fingerprint": texts.fingerprint}
    ranks.from_first(lambda: keep_texts(run, wanted))
    return {
        direction: NeutralReading.open(one, texts, run, direction, ranks, batch_tokens)
        for direction, one in steered.items()
    }
