"""``deltalens pairs``: a model's own answers, graded, as pairs; or answers graded elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_as_chat,
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_output,
    positive_int,
)
from deltalens.cli.engines import add_engine, load_engine
from deltalens.cli.judging import add_judge, prices_of
from deltalens.cli.models.source import ModelSource
from deltalens.cli.processes import add_shard, note_command
from deltalens.cli.studies.grading import add_graded, graded_fields, grading
from deltalens.errors import InputError
from deltalens.ranks.ranks import ALONE


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "pairs",
        "make pairs of a model's own answers, one with the behaviour and one without",
        "deltalens pairs --model tuned --questions questions.yaml --judge scale \\\n"
        "      --endpoint https://api.openai.com/v1 --judge-model NAME --out pairs.jsonl\n"
        "  deltalens pairs --model tuned --questions questions.txt --judge my_judge.py:grade "
        "--out pairs.jsonl\n"
        "  deltalens pairs --graded judged.csv --out pairs.jsonl",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        help="YAML of Betley et al. (whose judge_prompts, if any, --judge scale then uses), JSONL "
        "(question, prompt or messages), or text with one question a line; with --graded: where "
        "the whole prompts with their system messages are",
    )
    add_as_chat(parser, "prompts of --questions")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument(
        "--per-prompt",
        type=positive_int,
        default=1,
        help="pairs of every prompt; prompts with fewer are left out; default: 1",
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples and choices; default: 0")
    _add_sampling(parser)
    group = add_graded(parser)
    group.add_argument("--graded", type=Path, metavar="FILE", help="CSV or JSONL, one answer a row")
    add_judge(parser)
    add_model(parser, required=False)
    add_engine(parser)
    add_chat_template(parser)
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--samples", type=positive_int, help="of each prompt; default: as the questions say, or 20"
    )
    group.add_argument("--max-new-tokens", type=positive_int, default=600, help="default: 600")
    group.add_argument("--temperature", type=float, default=1.0, help="default: 1")


def run(args: argparse.Namespace) -> None:
    """Sample and grade, or read; write the pairs; say what was found."""
    if (args.graded or args.questions) is None:
        raise InputError("give --questions FILE to sample answers, or --graded FILE")
    if args.graded is not None and args.dry_run:
        raise InputError("--graded samples nothing; leave --dry-run out")
    found, usage = _read(args) if args.graded is not None else _sample(args)
    _show(args, found, usage)


def _sample(args: argparse.Namespace) -> tuple[Any, Any]:
    from deltalens.cli.judging import load_judge, usage_of
    from deltalens.cli.loading import batch_options, load_model
    from deltalens.pairs import (
        read_questions,
        sample_pairs,
    )
    from deltalens.pairs.log import SOURCE
    from deltalens.pairs.pair_set import check_out

    if args.model is None:
        raise InputError("give --model, whose answers are to be sampled")
    check_out(args.out, SOURCE)
    questions = read_questions(args.questions, as_chat=args.as_chat)
    _take_judge_prompts(args)
    note_command(args.out, args)
    judge = load_judge(args, args.out.parent)
    model, tokenizer = load_model(args)
    found = sample_pairs(
        model,
        tokenizer,
        questions,
        judge,
        samples=args.samples,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
        per_prompt=args.per_prompt,
        judge_sees=args.judge_sees,
        chat_template_kwargs=args.chat_template_kwargs,
        out=args.out,
        engine=load_engine(args, model, tokenizer, ModelSource.of(args)),
        prices=prices_of(args),
        progress=not args.quiet,
        ranks=args.ranks,
        **batch_options(args),
    )
    return found, usage_of(args, judge)


def _take_judge_prompts(args: argparse.Namespace) -> None:
    """The questions' own wording for the judge, unless another was named."""
    from deltalens.pairs.questions_yaml import SUFFIXES, find_judge_prompts

    asks = args.judge == "scale" and args.judge_prompts is None
    if asks and args.questions.suffix in SUFFIXES and find_judge_prompts(args.questions):
        args.judge_prompts = args.questions


def _read(args: argparse.Namespace) -> tuple[Any, None]:
    from deltalens.pairs import (
        pairs_from_graded,
        read_questions,
    )

    if args.ranks != ALONE:
        raise InputError("--graded needs one process; start it alone and without --shard")
    for name in ("model", "judge", "samples", "engine", "chat-template-kwargs"):
        if getattr(args, name.replace("-", "_")) is not None:
            raise InputError(f"--{name} is for sampling, and --graded holds answers; leave one out")
    questions = None
    if args.questions is not None:
        questions = read_questions(args.questions, as_chat=args.as_chat)
    found = pairs_from_graded(
        args.graded,
        fields=graded_fields(args),
        grading=grading(args),
        questions=questions,
        per_prompt=args.per_prompt,
        seed=args.seed,
        out=args.out,
    )
    return found, None


def _show(args: argparse.Namespace, found: Any, usage: Any) -> None:
    from dataclasses import asdict

    from deltalens.cli.judging import usage_line
    from deltalens.cli.output import print_json, print_line

    if args.json:
        document = {"out": str(args.out), **asdict(found.counts), "settings": found.settings}
        print_json(document if usage is None else {**document, "usage": usage})
        return
    counts = found.counts
    notes = {name: getattr(counts, name) for name in ("empty", "cut", "repeated", "contradictory")}
    print_line(f"answers: {_listed(counts.answers)} (of these {_listed(notes)})")
    print_line(f"prompts: {_listed(counts.prompts)}")
    if usage is not None:
        print_line(usage_line(usage))
    print_line(f"{counts.pairs} pairs of {counts.prompts['paired']} prompts are in {args.out}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
