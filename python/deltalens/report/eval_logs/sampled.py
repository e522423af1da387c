"""What one arm's model said under every condition, and what every judge made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltalens.judge import Verdict
from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.log import (
    Completion,
    Key,
    both_attempts,
    completions_path,
    read_completions,
    read_verdicts,
    verdicts_path,
)
from deltalens.trials.rates import Tally
from deltalens.trials.result import Arm, SweepResult

_ID = re.compile(r"(.+)-[0-9a-f]{8}(-all)?")
_PART = re.compile(r"(.+\.)?part-\d+")


@dataclass(frozen=True)
class Judged:
    """One judge's verdicts. name: what its scores are called, the judge's own name unless two
    versions of it have graded."""

    id: str
    name: str
    verdicts: Mapping[Key, Verdict]

    def tally(self, completions: Sequence[Completion]) -> Tally:
        """As a sweep counts them; of ``completions`` those that it has graded."""
        firsts = [c.key for c in completions if not c.key.attempt and c.key in self.verdicts]
        attempts = [both_attempts(self.verdicts, key) for key in firsts]
        return Tally.count([first for first, _ in attempts], [last for _, last in attempts])


@dataclass(frozen=True)
class Sampled:
    """An arm with its judges, the one that the sweep was decided by first."""

    arm: Arm
    completions: Mapping[Key, Completion]
    judges: list[Judged]

    @classmethod
    def read(cls, run: Path, result: SweepResult, arm: Arm) -> Sampled:
        ids = judge_ids(run, arm, first=result.settings["judge"]["id"])
        judges = [
            Judged(id, name, read_verdicts(verdicts_path(run, arm.direction, id)))
            for id, name in zip(ids, score_names(ids), strict=True)
        ]
        return cls(arm, read_completions(completions_path(run, arm.direction)), judges)

    def by_condition(self) -> Iterator[tuple[Condition, list[Completion]]]:
        """Unsteered, then as the sweep ranks its candidates, then what else was tried, each in the
        order of prompts, samples and attempts."""
        found: dict[Condition, list[Completion]] = {}
        for completion in self.completions.values():
            key = completion.key
            found.setdefault(Condition(key.latent, key.strength), []).append(completion)
        ranked = [Condition(c.latent, p.strength) for c in self.arm.curves for p in c.points]
        others = sorted(found.keys() - {UNSTEERED, *ranked}, key=str)
        for condition in dict.fromkeys([UNSTEERED, *ranked, *others]):
            if condition in found:
                yield condition, sorted(found[condition], key=lambda one: one.key[2:])


def judge_ids(run: Path, arm: Arm, *, first: str) -> list[str]:
    """The judges that have graded an arm, ``first`` and then by name."""
    before, after = f"{arm.direction}.", ".jsonl"
    paths = completions_path(run, arm.direction).parent.glob(f"{before}*{after}")
    ids = {path.name.removeprefix(before).removesuffix(after) for path in paths}
    there = sorted(id for id in ids if not _PART.fullmatch(id))
    return sorted(there, key=lambda id: id != first)


def score_names(ids: Sequence[str]) -> list[str]:
    """What each judge's scores are called."""
    matches = [_ID.fullmatch(id) for id in ids]
    names = [id if match is None else match[1] for id, match in zip(ids, matches, strict=True)]
    return [name if names.count(name) == 1 else id for id, name in zip(ids, names, strict=True)]
