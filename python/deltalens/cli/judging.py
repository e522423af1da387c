"""Arguments that name a judge, or the chat model behind one, and what they load."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import NamedValues, add_chat_template, key_value, positive_int
from deltalens.errors import InputError

KEY_ENV = "OPENAI_API_KEY"  # the endpoint's own default, which takes seconds to import
_ASKING = ("rubric", "scale")
_SCORER = "inspect:"  # before the name of a scorer
_ANY_SCORER = f"{_SCORER}…"


def add_judge(parser: argparse.ArgumentParser) -> None:
    """--judge and everything that it can need."""
    group = parser.add_argument_group("judge")
    group.add_argument(
        "--judge",
        help="rubric (a chat model reasons, then grades 1–5), scale (0–100 by token "
        "probabilities), module:function, path/file.py:function, inspect:NAME or "
        "inspect:path/file.py@NAME (a scorer of Inspect), or grammar (the model in the package)",
    )
    group.add_argument(
        "--judge-sees",
        choices=("final", "all"),
        default="final",
        help="of answers with reasoning what follows it, or the whole; default: final",
    )
    group.add_argument("--rubric", type=Path, metavar="FILE", help="what the grades 1–5 mean")
    group.add_argument(
        "--judge-prompts", type=Path, metavar="YAML", help="question file with scale's wording"
    )
    group.add_argument(
        "--aligned-below", type=float, help="scale: shows the behaviour below; default: 30"
    )
    group.add_argument("--coherent-above", type=float, help="scale: makes sense above; default: 50")
    _add_scorer(group)
    _add_chat(group)


def _add_scorer(group: Any) -> None:
    group.add_argument(
        "--scorer-args",
        nargs="+",
        type=key_value,
        action=NamedValues,
        metavar="KEY=VALUE",
        help="inspect: what the scorer is made with; values are JSON, or else text",
    )
    group.add_argument(
        "--targets",
        type=Path,
        metavar="FILE",
        help="inspect: questions (JSONL), each with a target that the scorer looks for",
    )
    group.add_argument(
        "--shown-above",
        type=float,
        metavar="SCORE",
        help="inspect: scores above it show the behaviour; CORRECT is 1, PARTIAL 0.5, INCORRECT 0; "
        "default: 1 shows it, 0 does not, and no other comes",
    )
    group.add_argument(
        "--shown-below", type=float, metavar="SCORE", help="inspect: scores below it show it"
    )


def add_chat(parser: argparse.ArgumentParser) -> None:
    """--judge-model and where it is."""
    _add_chat(parser.add_argument_group("chat model"))


def _add_chat(group: Any) -> None:
    group.add_argument(
        "--judge-model",
        metavar="NAME",
        help="the endpoint's name for the chat model; without --endpoint a directory or hub id, "
        "loaded here, for a scorer of Inspect what that calls it, such as openai/gpt-4o",
    )
    add_chat_template(group, "judge-")
    group.add_argument(
        "--endpoint", metavar="URL", help="OpenAI-compatible, such as http://localhost:8000/v1"
    )
    group.add_argument(
        "--judge-key-env",
        default=KEY_ENV,
        metavar="VARIABLE",
        help=f"environment variable with the endpoint's key; default: {KEY_ENV}",
    )
    group.add_argument(
        "--concurrency", type=positive_int, default=16, help="requests at once; default: 16"
    )
    group.add_argument("--price-in", type=float, help="per million prompt tokens, to show costs")
    group.add_argument("--price-out", type=float, help="per million completion tokens")


def load_judge(args: argparse.Namespace, cache_directory: Path) -> Any:
    """The judge that the arguments name; replies are kept in ``cache_directory``.

    Raises :class:`InputError` when an argument is missing or belongs to another judge.
    """
    if args.judge is None:
        raise InputError("give --judge: rubric, scale, grammar or path/file.py:function")
    _check_belongs(args)
    if args.judge in _ASKING:
        return _asking_judge(args, cache_directory)
    if args.judge == "grammar":
        from deltalens.organism.judge import GrammarJudge

        return GrammarJudge()
    if args.judge.startswith(_SCORER):
        return _scorer_judge(args)
    from deltalens.judge import CallableJudge

    return CallableJudge.load(args.judge)


def _scorer_judge(args: argparse.Namespace) -> Any:
    """The scorer; the key of an endpoint is read from the environment."""
    from deltalens.judge.scorers import ScorerJudge, ShownWhen
    from deltalens.pairs.targets import read_targets

    as_chat = getattr(args, "as_chat", False)
    targets = None if args.targets is None else read_targets(args.targets, as_chat=as_chat)
    return ScorerJudge(
        args.judge.removeprefix(_SCORER),
        args.scorer_args,
        shown=ShownWhen(args.shown_above, args.shown_below),
        grader=_grader(args),
        target=None if targets is None else targets.of,
        targets=None if targets is None else targets.fingerprint,
        at_once=args.concurrency,
    )


def _grader(args: argparse.Namespace) -> Any:
    from deltalens.judge.scorers.grading import Grader

    if args.judge_model is None:
        if args.endpoint is not None:
            raise InputError("--endpoint needs --judge-model, its name for the chat model")
        return None
    return Grader(args.judge_model, args.endpoint, os.environ.get(args.judge_key_env))


def load_chat(args: argparse.Namespace) -> Any:
    """The chat model: at --endpoint, or loaded in this process."""
    from deltalens.judge import Endpoint

    if args.judge_model is None:
        raise InputError("give --judge-model, and --endpoint unless it is to be loaded here")
    if args.endpoint is not None:
        if args.judge_chat_template_kwargs is not None:
            raise InputError(
                "--judge-chat-template-kwargs is for a model loaded here; configure the endpoint"
            )
        return Endpoint(
            args.endpoint, args.judge_model, key_env=args.judge_key_env, at_once=args.concurrency
        )
    return _local_chat(args)


def prices_of(args: argparse.Namespace) -> tuple[float, float] | None:
    """--price-in and --price-out, where either was given."""
    if args.price_in is None and args.price_out is None:
        return None
    return args.price_in or 0.0, args.price_out or 0.0


def usage_of(args: argparse.Namespace, judge: Any) -> dict[str, Any] | None:
    """What a judge or chat model has been used for, with its cost where prices were given."""
    usage = getattr(getattr(judge, "chat", judge), "usage", None)
    if usage is None:
        return None
    found = dict(vars(usage))
    if args.price_in is not None or args.price_out is not None:
        found["cost"] = usage.cost(args.price_in or 0.0, args.price_out or 0.0)
    return found


def usage_line(usage: dict[str, Any]) -> str:
    """The same as a sentence."""
    tokens = f"{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    cost = f", cost {usage['cost']:.4g}" if "cost" in usage else ""
    return f"chat model: {usage['requests']:,} requests, {usage['cached']:,} cached, {tokens}{cost}"


def _check_belongs(args: argparse.Namespace) -> None:
    options = {
        "--rubric": (args.rubric, ("rubric",)),
        "--judge-prompts": (args.judge_prompts, ("scale",)),
        "--aligned-below": (args.aligned_below, ("scale",)),
        "--coherent-above": (args.coherent_above, ("scale",)),
        "--judge-model": (args.judge_model, (*_ASKING, _ANY_SCORER)),
        "--endpoint": (args.endpoint, (*_ASKING, _ANY_SCORER)),
        "--scorer-args": (args.scorer_args, (_ANY_SCORER,)),
        "--targets": (args.targets, (_ANY_SCORER,)),
        "--shown-above": (args.shown_above, (_ANY_SCORER,)),
        "--shown-below": (args.shown_below, (_ANY_SCORER,)),
    }
    judge = _ANY_SCORER if args.judge.startswith(_SCORER) else args.judge
    for name, (value, judges) in options.items():
        if value is not None and judge not in judges:
            raise InputError(f"{name} is for --judge {' or '.join(judges)}; leave it out")


def _asking_judge(args: argparse.Namespace, cache_directory: Path) -> Any:
    from deltalens.judge import ReplyCache, RubricJudge, ScaleJudge, Thresholds, read_rubric

    options: dict[str, Any] = {}
    if args.rubric is not None:
        options["rubric"] = read_rubric(args.rubric)
    if args.judge_prompts is not None:
        from deltalens.pairs.questions_yaml import judge_prompts

        options |= judge_prompts(args.judge_prompts)
    limits = {name: getattr(args, name) for name in ("aligned_below", "coherent_above")}
    given = {name: value for name, value in limits.items() if value is not None}
    if given:
        options["thresholds"] = Thresholds(**given)
    if args.judge == "scale":
        limits = options.get("thresholds", Thresholds())
        args.aligned_below, args.coherent_above = limits.aligned_below, limits.coherent_above
    judge = RubricJudge if args.judge == "rubric" else ScaleJudge
    return judge(load_chat(args), cache=ReplyCache(cache_directory), **options)


def _local_chat(args: argparse.Namespace) -> Any:
    from deltalens.cli.loading import load_model
    from deltalens.judge.local import LocalChat
    from deltalens.lm.model.identity import model_fingerprint, model_name

    wanted = {"model": args.judge_model, "revision": None, "dtype": "auto"}
    device = getattr(args, "device", "auto")
    model, tokenizer = load_model(argparse.Namespace(**wanted, device=device))
    return LocalChat(
        model,
        tokenizer,
        f"{model_name(model)}@{model_fingerprint(model)}",
        chat_template_kwargs=args.judge_chat_template_kwargs,
    )
