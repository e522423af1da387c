"""One arm of a sweep on its way: what is on disk, and how the rest is generated and graded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from deltalens.cost.dry_run import is_dry
from deltalens.judge import EMPTY, Answer, Judge, JudgeError, Verdict
from deltalens.lm import Site
from deltalens.lm.progress import Progress
from deltalens.lm.sampling.engine import Engine
from deltalens.lm.text.reasoning import completion_reader
from deltalens.pairs.seen import Sees, seen_text
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.line_log import Batched
from deltalens.storage.parts import fold_parts, part_path
from deltalens.trials.conditions import Condition, stream
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.log import (
    Completion,
    Key,
    append_completions,
    append_verdicts,
    completions_path,
    read_completions,
    read_verdicts,
    verdicts_path,
)
from deltalens.trials.result import Direction
from deltalens.trials.setup.settings import Generation

_WAVE = 8192  # completions asked of the sampler at once: what bounds the edits in memory


@dataclass(frozen=True)
class Subject:
    """A model with everything that steering it takes. ``norm``: median‖a‖ at the site."""

    model: Any
    engine: Engine
    tokenizer: Any
    site: Site
    treatment: Treatment
    norm: float
    prompts: Sequence[list[int]]
    answered: Sequence[str | list[dict[str, str]]]  # the prompts as a judge reads them
    opened: Sequence[bool]  # whether a prompt ends inside of reasoning
    generation: Generation


@dataclass
class Spending:
    """What a sweep has cost since it was started this time; both arms share one.

    prices: of the judge's tokens in and out, per million of them.
    """

    prices: tuple[float, float] | None = None
    completions: int = 0
    tokens: int = 0
    graded: int = 0

    def words(self, judge: Judge) -> str:
        """Tokens generated and read, and what the judge has charged."""
        text = f"{self.completions:,} completions, {self.tokens:,} tokens, {self.graded:,} graded"
        usage = getattr(getattr(judge, "chat", None), "usage", None)
        if usage is None:
            return text
        text += f" ({usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens)"
        return text if self.prices is None else f"{text}, cost {usage.cost(*self.prices):.4g}"


@dataclass
class ArmWork:
    """The completions and verdicts of one arm, in memory and appended to disk as they come.

    Of several processes each does some of what is asked, and appends to parts of its own.
    """

    subject: Subject
    judge: Judge
    sees: Sees
    paths: tuple[Path, Path]
    spending: Spending = field(default_factory=Spending)
    ranks: Ranks = ALONE
    completions: dict[Key, Completion] = field(default_factory=dict)
    verdicts: dict[Key, Verdict] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        subject: Subject,
        judge: Judge,
        sees: Sees,
        run: Path,
        direction: Direction,
        spending: Spending,
        ranks: Ranks = ALONE,
    ) -> ArmWork:
        """With all that is on disk already."""
        paths = (
            completions_path(run, direction),
            verdicts_path(run, direction, judge_id(judge, sees)),
        )
        work = cls(subject, judge, sees, paths, spending, ranks)
        work._read()
        return work

    def complete(self, keys: Sequence[Key], *, progress: bool) -> None:
        """Generate and grade all ``keys``; what could not be graded is sampled again, as often as
        the judge allows. Raises what generation and the judge raise, after writing what came."""
        self._complete(self.ranks.share(keys, self._is_done), progress)
        self.ranks.meet()
        if self.ranks.size > 1:
            self._read()

    def _is_done(self, key: Key) -> bool:
        for attempt in range(self.judge.resamples + 1):
            tried = key._replace(attempt=attempt)
            found = self.verdicts.get(tried)
            if found is None or tried not in self.completions:
                return False
            if found.outcome in ("shown", "absent"):
                return True
        return True

    def _read(self) -> None:
        """Take in all that is on disk, but parts to which others may be appending."""
        if not is_dry():
            self.ranks.alone_first(self._fold)
        completions, verdicts = self.paths
        for path in dict.fromkeys((completions, self._own(completions))):
            self.completions.update(read_completions(path))
        for path in dict.fromkeys((verdicts, self._own(verdicts))):
            self.verdicts.update(read_verdicts(path))

    def _fold(self) -> None:
        for path in self.paths:
            fold_parts(path)

    def _own(self, path: Path) -> Path:
        return part_path(path, self.ranks.part)

    def _complete(self, keys: Sequence[Key], progress: bool) -> None:
        for attempt in range(self.judge.resamples + 1):
            if not keys:
                return
            self._generate(keys, progress)
            self._grade(keys, progress)
            keys = [
                key._replace(attempt=attempt + 1)
                for key in keys
                if self.verdicts[key].outcome not in ("shown", "absent")
            ]

    def rehearsed(self, keys: Sequence[Key]) -> Iterator[Completion]:
        """Those that are missing, as they would be generated."""
        missing = [key for key in keys if key not in self.completions]
        for start in range(0, len(missing), _WAVE):
            yield from self._sampled(missing[start : start + _WAVE])

    def _generate(self, keys: Sequence[Key], progress: bool) -> None:
        missing = [key for key in keys if key not in self.completions]
        write = partial(append_completions, self._own(self.paths[0]))
        with (
            Progress(progress, "steered completions", len(keys)) as bar,
            Batched[Completion](write) as log,
        ):
            bar.advance(len(keys) - len(missing))
            for start in range(0, len(missing), _WAVE):
                for completion in self._sampled(missing[start : start + _WAVE]):
                    self.completions[completion.key] = completion
                    log.add(completion)
                    self.spending.completions += 1
                    bar.note(self.spending.words(self.judge))
                    bar.advance()

    def _sampled(self, keys: Sequence[Key]) -> Iterator[Completion]:
        subject, options = self.subject, self.subject.generation
        conditions = [Condition(key.latent, key.strength) for key in keys]
        found = subject.engine.stream(
            [subject.prompts[key.prompt] for key in keys],
            options.draw,
            streams=list(map(stream, keys)),
            steer=subject.treatment.steer(conditions, options.steer_tokens),
        )
        text = completion_reader(subject.tokenizer)
        for row, tokens in found:
            self.spending.tokens += len(subject.prompts[keys[row].prompt]) + len(tokens)
            yield Completion(keys[row], options.seed, text(tokens), len(tokens))

    def _grade(self, keys: Sequence[Key], progress: bool) -> None:
        missing = [key for key in keys if key not in self.verdicts]
        write = partial(append_verdicts, self._own(self.paths[1]))
        with (
            Progress(progress, "graded completions", len(keys)) as bar,
            Batched[tuple[Key, Verdict]](write) as log,
        ):
            bar.advance(len(keys) - len(missing))
            for key, verdict in self._verdicts(missing):
                self.verdicts[key] = verdict
                log.add((key, verdict))
                self.spending.graded += 1
                bar.note(self.spending.words(self.judge))
                bar.advance()
        silent = sum(key not in self.verdicts for key in missing)
        if silent:
            raise JudgeError(f"the judge {self.judge.name} left out {silent} of {len(missing)}")

    def _verdicts(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Verdict]]:
        """A steered model that says nothing is incoherent, whatever a judge makes of it."""
        texts = {key: self._seen(key) for key in keys}
        said = [key for key in keys if texts[key].strip()]
        yield from ((key, EMPTY) for key in keys if not texts[key].strip())
        answers = [Answer(self.subject.answered[key.prompt], texts[key]) for key in said]
        for number, verdict in self.judge.grade(answers):
            yield said[number], verdict

    def _seen(self, key: Key) -> str:
        opened = self.subject.opened[key.prompt]
        return seen_text(self.completions[key].text, self.sees, opened=opened)


def judge_id(judge: Judge, sees: Sees) -> str:
    """What a judge's verdicts are filed under: two versions of a judge are two judges, and one that
    sees whole answers is another."""
    whole = "-all" if sees == "all" else ""
    return f"{judge.name}-{judge.version[:8]}{whole}"
