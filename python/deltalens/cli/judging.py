"""Arguments that name a judge, or the chat model behind one, and what they load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_chat_template, positive_int
from deltalens.errors import InputError

KEY_ENV = "OPENAI_API_KEY"  # the endpoint's own default, which takes seconds to import
_ASKING = ("rubric", "scale")


def add_judge(parser: argparse.ArgumentParser) -> None:
    """--judge and everything that it can need."""
    group = parser.add_argument_group("judge")
    group.add_argument(
        "--judge",
        help="rubric (a chat model reasons, then grades 1–5), scale (0–100 by token "
        "probabilities), module:function, path/file.py:function, or grammar (the model in the "
        "package)",
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
    _add_chat(group)


def add_chat(parser: argparse.ArgumentParser) -> None:
    """--judge-model and where it is."""
    _add_chat(parser.add_argument_group("chat model"))


def _add_chat(group: Any) -> None:
    group.add_argument(
        "--judge-model",
        metavar="NAME",
        help="the endpoint's name for the chat model; without --endpoint a directory or hub id, "
        "loaded here",
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
    from deltalens.judge import CallableJudge

    return CallableJudge.load(args.judge)


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
        "--judge-model": (args.judge_model, _ASKING),
        "--endpoint": (args.endpoint, _ASKING),
    }
    for name, (value, judges) in options.items():
        if value is not None and args.judge not in judges:
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
