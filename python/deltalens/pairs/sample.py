"""On-policy pairs: a model's own answers, graded, where one prompt got both kinds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from deltalens.cost.dry_run import begun
from deltalens.cost.total import Prices
from deltalens.errors import InputError, quoted
from deltalens.judge import EMPTY, Answer, Judge
from deltalens.lm import GENERATION_TOKENS, find_bos
from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.lm.progress import Progress
from deltalens.lm.sampling.engine import Draw, Engine, Transformers
from deltalens.lm.text.chat import ChatOptions, template_options, warn_of_plain_prompts
from deltalens.lm.text.completions import vocabulary_fingerprint
from deltalens.lm.text.reasoning import completion_reader
from deltalens.lm.tokenise import check_context
from deltalens.pairs.answer import GradedAnswer, SampledIds
from deltalens.pairs.build import build_pairs
from deltalens.pairs.cost import longest_call, sampling_work
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.log import SOURCE, AnswerLog, Sample, Text
from deltalens.pairs.pair_set import PairSet, check_any
from deltalens.pairs.questions import Question
from deltalens.pairs.seen import Sees, check_sees, ends_in_reasoning, seen_text
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.line_log import Batched
from deltalens.storage.lock import lock_beside
from deltalens.storage.scratch import scratch_directory

log = logging.getLogger(__name__)

SAMPLES = 20
MAX_NEW_TOKENS = 600


def sample_pairs(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Question],
    judge: Judge,
    *,
    samples: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 1.0,
    seed: int = 0,
    per_prompt: int = 1,
    judge_sees: Sees = "final",
    chat_template_kwargs: ChatOptions | None = None,
    out: str | Path | None = None,
    batch_tokens: int = GENERATION_TOKENS,
    engine: Engine | None = None,
    prices: Prices | None = None,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> PairSet:
    """Pairs of every prompt to which the model gave answers of both kinds.

    samples: answers to each prompt; by default what its question says, else 20. per_prompt: pairs
    of each prompt, see :func:`~deltalens.pairs.build.build_pairs`. An answer is sampled once,
    whatever its grade: where too many cannot be graded, ask for more samples. Answers that
    ``max_new_tokens`` cuts are graded as they are; empty ones are incoherent without being graded.
    The judge is shown what follows an answer's reasoning (see
    :func:`~deltalens.lm.text.reasoning.final_answer`), nothing being empty, or, with
    ``judge_sees="all"``, the whole. Pairs are of whole answers, and carry the ids that were
    sampled. chat_template_kwargs: further arguments of the chat template, such as
    ``{"enable_thinking": False}``. engine: what draws the answers, such as a
    :class:`~deltalens.VllmEngine` of the model; by default the model itself, with ``batch_tokens``
    tokens in its cache. What there is to do is logged before it begins, with its cost where
    ``prices`` of the judge, per million tokens in and out, are given.

    With ``out`` the pairs are written there, and beside them, as they come, the samples
    (``.samples.jsonl``) and the graded answers (``.answers.jsonl``); last the settings and counts
    (``.meta.json``). The same call continues what was cut, with nothing sampled or graded twice but
    what came in the second before a process was killed, and more samples or questions add to what
    is there. Another model, engine, judge, seed, temperature or chat template argument is refused.
    ranks: processes that all make this call with one ``out`` and share the work, with the same
    result; a :class:`~deltalens.ranks.shard.Shard` does its part of it and raises
    :class:`~deltalens.ranks.shard.ShardDone`.

    Raises :class:`InputError` for that, for prompts that do not fit the model, and when no prompt
    got both kinds; :class:`~deltalens.judge.JudgeError` when the judge cannot go on.
    """
    wanted = _wanted(questions, samples)
    check_sees(judge_sees)
    options = template_options(chat_template_kwargs, tokenizer)
    engine = engine or Transformers(model, tokenizer, batch_tokens)
    draw = Draw(max_new_tokens, temperature, seed)
    settings = {
        "sampling": _sampling(model, tokenizer, engine, draw, options),
        "judge": {"name": judge.name, "version": judge.version, "sees": judge_sees},
    }
    if out is None and ranks != ALONE:
        raise InputError("several processes meet in the file of pairs; give out")
    with _place(out, ranks) as path, ExitStack() as stack:
        answers = AnswerLog.open(path, settings, ranks)
        ids = _prompt_ids(model, tokenizer, wanted, max_new_tokens, options)
        own = ranks.share(wanted, answers.has)
        asked = longest_call(
            judge, tokenizer, [sample.question.prompt for sample in wanted], max_new_tokens
        )
        work = sampling_work(own, ids, answers, max_new_tokens, asked, prices)
        stack.enter_context(
            begun(log, work, lambda: _missing_stream(engine, own, ids, answers, draw)[1])
        )
        _sample_missing(engine, tokenizer, own, ids, answers, draw, progress)
        opened = {
            sample.question.key: ends_in_reasoning(
                tokenizer, sample.question.prompt, ids[sample.question.key]
            )
            for sample in wanted
        }
        seen = partial(_seen, log=answers, sees=judge_sees, opened=opened)
        _grade_missing(judge, own, answers, seen, progress)
        answers.read_all()
        pairs, counts = build_pairs(
            (_graded(sample, answers) for sample in wanted), per_prompt=per_prompt, seed=seed
        )
        used = {"pairing": {"per_prompt": per_prompt, "seed": seed, "length": "nearest"}}
        found = PairSet(pairs, counts, {"source": SOURCE, **settings, **used})
        check_any(found)
        ranks.from_first(lambda: found.save(path))
    return found


@contextmanager
def _place(out: str | Path | None, ranks: Ranks) -> Iterator[Path]:
    if out is not None:
        with alone(lock_beside(Path(out)), ranks):
            yield Path(out)
        return
    with scratch_directory() as directory:
        yield directory / "pairs.jsonl"


def _wanted(questions: Sequence[Question], samples: int | None) -> list[Sample]:
    if not questions:
        raise InputError("no questions given; pairs need at least one")
    if samples is not None and samples < 2:
        raise InputError(f"samples must be at least 2 to give both kinds, got {samples}")
    wanted = [
        Sample(question, number)
        for question in questions
        for number in range(samples or question.samples or SAMPLES)
    ]
    if len({sample.stream for sample in wanted}) < len(wanted):
        raise InputError("a question occurs twice with the same id and prompt")
    return wanted


def _sampling(
    model: Any, tokenizer: Any, engine: Engine, draw: Draw, options: dict[str, Any]
) -> dict[str, Any]:
    """What fixes every sample."""
    template = getattr(tokenizer, "chat_template", None)
    return {
        "model": model_name(model),
        "fingerprint": model_fingerprint(model),
        "chat_template": hashlib.sha256(str(template).encode()).hexdigest()[:16],
        "chat_template_kwargs": options or None,
        "engine": engine.name,
        **draw._asdict(),
    }


def _missing_stream(
    engine: Engine,
    wanted: Sequence[Sample],
    prompts: Mapping[str, list[int]],
    log: AnswerLog,
    draw: Draw,
    progress: bool = False,
) -> tuple[list[Sample], Iterator[tuple[int, list[int]]]]:
    """The samples that are not there, and their answers as they end."""
    missing = [sample for sample in wanted if sample.stream not in log.texts]
    ids = [prompts[sample.question.key] for sample in missing]
    streams = [sample.stream for sample in missing]
    return missing, engine.stream(ids, draw, streams=streams, progress=progress)


def _sample_missing(
    engine: Engine,
    tokenizer: Any,
    wanted: Sequence[Sample],
    prompts: Mapping[str, list[int]],
    log: AnswerLog,
    draw: Draw,
    progress: bool,
) -> None:
    missing, rows = _missing_stream(engine, wanted, prompts, log, draw, progress)
    text, vocabulary = completion_reader(tokenizer), vocabulary_fingerprint(tokenizer)
    with Batched(log.add_texts) as kept:
        for row, tokens in rows:
            cut = len(tokens) >= draw.max_new_tokens
            sampled = SampledIds(prompts[missing[row].question.key], list(tokens), vocabulary)
            kept.add((missing[row], Text(text(tokens), cut, sampled)))


def _prompt_ids(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    max_new_tokens: int,
    options: dict[str, Any],
) -> dict[str, list[int]]:
    """Token ids of each question's prompt, by its key; checked to fit with its answer."""
    bos = find_bos(model, tokenizer)
    questions = {item.question.key: item.question for item in samples}
    warn_of_plain_prompts(tokenizer, (question.prompt for question in questions.values()))
    found = {}
    for key, question in questions.items():
        ids = encode_prompt(
            tokenizer, question.prompt, bos=bos, name=question.id, chat_template_kwargs=options
        )
        label = f"question {quoted(question.id)}: {len(ids)} + {max_new_tokens} new"
        check_context(model, len(ids) + max_new_tokens, label)
        found[key] = ids
    return found


def _seen(sample: Sample, log: AnswerLog, sees: Sees, opened: Mapping[str, bool]) -> str:
    return seen_text(log.texts[sample.stream].text, sees, opened=opened[sample.question.key])


def _grade_missing(
    judge: Judge,
    wanted: Sequence[Sample],
    log: AnswerLog,
    seen: Callable[[Sample], str],
    progress: bool,
) -> None:
    missing = [sample for sample in wanted if sample.stream not in log.verdicts]
    texts = {sample.stream: seen(sample) for sample in missing}
    spoken = [sample for sample in missing if texts[sample.stream].strip()]
    answers = [Answer(sample.question.prompt, texts[sample.stream]) for sample in spoken]
    with Batched(log.add_verdicts) as kept, Progress(progress, "grades", len(missing)) as bar:
        for sample in missing:
            if not texts[sample.stream].strip():
                kept.add((sample, EMPTY))
                bar.advance()
        for number, verdict in judge.grade(answers) if answers else ():
            kept.add((spoken[number], verdict))
            bar.advance()
    left = sum(sample.stream not in log.verdicts for sample in wanted)
    if left:
        raise InputError(f"the judge {judge.name} left {left} answers without a verdict; run again")


def _graded(sample: Sample, log: AnswerLog) -> GradedAnswer:
    text = log.texts[sample.stream]
    origin = {"sample": sample.number, "stream": sample.stream}
    return GradedAnswer(
        sample.question, text.text, log.verdicts[sample.stream], origin, text.cut, text.ids
    )
