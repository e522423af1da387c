"""Names for a run's latents, from a language model that reads their evidence."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost, Prices
from deltalens.errors import InputError
from deltalens.examples.store import EXAMPLES_FILE, read_examples
from deltalens.judge import ChatModel, ChatRequest, ReplyCache
from deltalens.judge.cache import ask
from deltalens.judge.template import version_of
from deltalens.lm.progress import Progress
from deltalens.pairs.row import Prompt
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.storage.lock import lock_in
from deltalens.study.attribution import Attribution
from deltalens.trials.interpretation.reply import Named, parse_reply
from deltalens.trials.interpretation.store import (
    Interpretation,
    Kind,
    append,
    read_all,
    read_interpretations,
)
from deltalens.trials.interpretation.text import Contrast, examples_text, steering_text
from deltalens.trials.log import Key, completions_path, read_completions
from deltalens.trials.result import STEERING_DIRECTORY, SUMMARY_FILE, Arm, Curve, SweepResult
from deltalens.trials.setup.settings import read_prompts

log = logging.getLogger(__name__)

__all__ = ["Interpretation", "interpret", "read_interpretations"]

FORMAT = 2  # of requests and their parsing; raised when either changes
MAX_TOKENS = 512
CASES = 6  # of each arm
_CHARACTERS = 3  # of English text in a token, or more


class _Subject(NamedTuple):
    latent: int
    kind: Kind
    text: str
    version: str


def interpret(
    run: str | Path,
    chat: ChatModel,
    *,
    top: int = 20,
    cache: ReplyCache | None = None,
    prices: Prices | None = None,
    progress: bool = False,
) -> dict[int, list[Interpretation]]:
    """Let ``chat`` name the best ``top`` latents of a run, and return all names there are.

    Each latent gets a name from its examples and one from the completions of the models steered
    with it, where the run has them. Lines are appended to ``interpretations.jsonl`` as they come;
    what is there already, asked with the same words, is not asked again, and a reply that cannot
    be read is kept without a name. What is to be asked is logged before the first request, with
    its cost where ``prices`` per million tokens in and out are given. Raises :class:`InputError`
    for a run with neither examples nor a sweep, and :class:`~deltalens.judge.JudgeError` when
    ``chat`` cannot go on.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    run = Path(run)
    with alone(lock_in(run), ALONE):
        _interpret(run, chat, top, cache, prices, progress)
    return read_interpretations(run)


def _interpret(
    run: Path,
    chat: ChatModel,
    top: int,
    cache: ReplyCache | None,
    prices: Prices | None,
    progress: bool,
) -> None:
    latents = Attribution.load(run).latents[:top].tolist()
    known = {(item.latent, item.kind, item.version) for item in read_all(run)}
    wanted = [
        subject
        for subject in _subjects(run, latents, chat.name)
        if (subject.latent, subject.kind, subject.version) not in known
    ]
    requests = [ChatRequest.ask(subject.text, MAX_TOKENS) for subject in wanted]
    work = Work(_asking(requests), prices=prices)
    with begun(log, work), Progress(progress, "names", len(wanted)) as bar:
        for number, reply in ask(chat, requests, cache, version_of(format=FORMAT, task="names")):
            append(run, _interpretation(wanted[number], chat.name, reply.text))
            bar.advance()


def _asking(requests: Sequence[ChatRequest]) -> Cost:
    """At most, with tokens in as of English text: there is no tokenizer to count with."""
    characters = sum(len(message["content"]) for one in requests for message in one.messages)
    return Cost(
        judged=len(requests),
        judge_in=-(-characters // _CHARACTERS),
        judge_out=sum(one.max_tokens for one in requests),
    )


def _interpretation(subject: _Subject, model: str, reply: str) -> Interpretation:
    named = parse_reply(reply) or Named("", "")
    return Interpretation(
        subject.latent, subject.kind, named.name, named.explanation, model, subject.version, reply
    )


def _subjects(run: Path, latents: list[int], model: str) -> Iterator[_Subject]:
    sources: dict[Kind, dict[int, str]] = {}
    if (run / EXAMPLES_FILE).exists():
        sources["examples"] = dict(_of_examples(run, latents))
    if (run / STEERING_DIRECTORY / SUMMARY_FILE).exists():
        sources["steering"] = dict(_of_steering(run, latents))
    if not sources:
        raise InputError(
            f"{run} has neither examples nor a sweep to name latents from; run deltalens examples "
            "--run or deltalens steer first"
        )
    for latent in latents:
        for kind, texts in sources.items():
            if latent in texts:
                version = version_of(format=FORMAT, text=texts[latent], model=model)
                yield _Subject(latent, kind, texts[latent], version)


def _of_examples(run: Path, latents: list[int]) -> Iterator[tuple[int, str]]:
    for line in read_examples(run):
        if line["latent"] in latents and "examples" in line:
            text = examples_text(line["examples"])
            if text is not None:
                yield line["latent"], text


def _of_steering(run: Path, latents: list[int]) -> Iterator[tuple[int, str]]:
    result, prompts = SweepResult.load(run), read_prompts(run)
    texts = {
        arm.direction: {
            key: item.text
            for key, item in read_completions(completions_path(run, arm.direction)).items()
        }
        for arm in result.arms.values()
    }
    for latent in latents:
        found = [
            list(_contrasts(arm, latent, prompts, texts[arm.direction]))
            for arm in result.arms.values()
        ]
        mixed = [case for cases in zip_longest(*found) for case in cases if case is not None]
        if (text := steering_text(mixed)) is not None:
            yield latent, text


def _contrasts(
    arm: Arm, latent: int, prompts: list[Prompt], texts: dict[Key, str]
) -> Iterator[Contrast]:
    """First samples of the first prompts, at the chosen strength or else the weakest."""
    curve = next((curve for curve in arm.curves if curve.latent == latent), None)
    if curve is None or not curve.points:
        return
    strength = _strength(curve)
    for number, prompt in enumerate(prompts[:CASES]):
        usual = texts.get(Key(None, 0.0, number, 0, 0))
        steered = texts.get(Key(latent, strength, number, 0, 0))
        if usual is not None and steered is not None:
            yield Contrast(prompt, usual, steered, strength)


def _strength(curve: Curve) -> float:
    return curve.points[0 if curve.chosen is None else curve.chosen].strength
