"""``deltalens steer``: try a run's latents, steering with them and grading what the model says."""

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
    add_sae,
    non_negative_int,
    positive_int,
)
from deltalens.cli.engines import add_engine, load_engines
from deltalens.cli.judging import add_judge, prices_of
from deltalens.cli.processes import add_shard, note_command
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "steer",
        "steer with a run's top latents and with controls, grade the completions, compare",
        "deltalens steer runs/first --against BASE --prompts questions.yaml --judge rubric \\\n"
        "      --endpoint https://api.openai.com/v1 --judge-model NAME\n"
        "  deltalens steer runs/first --against BASE --judge my_judge.py:grade\n"
        "  deltalens steer runs/first --choose-again --max-incoherence 0.2\n"
        "  deltalens steer runs/first --only-side-effects --neutral texts.jsonl",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--against", help="a model without the behaviour, to be steered toward it, too"
    )
    group.add_argument(
        "--both-ways",
        action="store_true",
        help="steer the run's own model toward the behaviour, too: one that shows it now and then",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        help="questions (YAML, JSONL or text) to steer on; default: those of the run's pairs",
    )
    add_as_chat(parser, "prompts of --prompts")
    _add_intervention(parser)
    _add_grid(parser)
    _add_sampling(parser)
    _add_side_effects(parser)
    add_judge(parser)
    add_model(parser, required=False)
    add_engine(parser)
    add_chat_template(parser)
    add_sae(parser, required=False)
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def _add_intervention(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is done with a latent")
    group.add_argument(
        "--intervention",
        choices=("add", "ablate", "clamp", "multiply"),
        default="add",
        help="add its direction; ablate it, which puts the baseline in its place and steers away "
        "only; clamp its activation; multiply its activation; default: add",
    )
    group.add_argument(
        "--clamp",
        metavar="VALUE",
        help="what clamp holds it at for a strength of 1: a value in the SAE's units such as 5.0, "
        "or q0.99, the quantile of its own activations where it is active in the prompts",
    )
    group.add_argument(
        "--only-active",
        action="store_true",
        help="only at tokens where the latent is active, by the SAE's encoder",
    )


def _add_grid(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to compare")
    group.add_argument(
        "--sets",
        nargs="+",
        choices=("attribution", "push", "present", "activation", "gradient", "cosine"),
        default=["attribution", "activation"],
        help="rankings whose first latents are steered with: attribution, as the run ranks; push, "
        "the largest effect of steering to first order; present, attribution's above the baseline "
        "only; activation, where the models differ; gradient, its size along a latent whatever its "
        "sign in each pair; cosine, nearest to the mean gradient difference; default: attribution "
        "activation",
    )
    group.add_argument(
        "--top", type=positive_int, default=20, help="latents of each ranking; default: 20"
    )
    group.add_argument(
        "--together",
        type=positive_int,
        default=1,
        metavar="N",
        help="the first N latents of each ranking as one candidate, in the place of --top, against "
        "groups of N random latents",
    )
    group.add_argument(
        "--greedy",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="choose N latents of each ranking's --top one after the other, each the one that adds "
        "most to those before, on half of the prompts; test what was chosen on the other half",
    )
    group.add_argument(
        "--random", type=positive_int, default=20, help="random live latents; default: 20"
    )
    group.add_argument(
        "--matched",
        type=int,
        default=20,
        help="random latents about as often active as the top ones; default: 20",
    )
    group.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        help="of add: multiples of the median residual norm (default: 0.2 0.4 0.6); of ablate: the "
        "share that is taken away (1); of clamp: multiples of its value (1 2 4); of multiply: how "
        "many times itself is added, or taken away where the latent is to be less (1 2 4)",
    )
    group.add_argument(
        "--max-incoherence",
        type=float,
        default=0.1,
        help="share of incoherent completions up to which a strength may count, above the "
        "unsteered model's where that exceeds it; default: 0.1",
    )
    group.add_argument(
        "--adaptive",
        action="store_true",
        help="sample in rounds and stop where the verdicts are clear, with p-values and intervals "
        "that allow for it; a whole sweep later uses what there is",
    )
    group.add_argument(
        "--choose-again",
        action="store_true",
        help="only choose strengths anew among what was sampled; no model is loaded",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--samples", type=positive_int, default=1, help="of each prompt and condition; default: 1"
    )
    group.add_argument(
        "--unsteered-samples", type=positive_int, help="without steering; default: 5 times as many"
    )
    group.add_argument("--max-new-tokens", type=positive_int, default=200, help="default: 200")
    group.add_argument("--temperature", type=float, default=1.0, help="default: 1")
    group.add_argument("--seed", type=int, default=0, help="default: 0")
    group.add_argument(
        "--steer-tokens",
        choices=("all", "generated"),
        default="all",
        help="steer the prompt and the completion, or the latter only; default: all",
    )


def _add_side_effects(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("side effects")
    group.add_argument(
        "--neutral",
        type=Path,
        metavar="FILE",
        help="text file, JSONL file or run directory with texts that have nothing to do with the "
        "behaviour: what every condition does to their loss, and to the tokens chosen there",
    )
    group.add_argument(
        "--neutral-texts", type=positive_int, default=32, help="the first so many; default: 32"
    )
    group.add_argument(
        "--neutral-tokens", type=positive_int, default=128, help="of each at most; default: 128"
    )
    group.add_argument(
        "--only-side-effects",
        action="store_true",
        help="measure them of the sweep that is there; nothing is sampled or graded",
    )


def run(args: argparse.Namespace) -> None:
    """Sweep, choose again or measure side effects, and show what came out."""
    from deltalens.cli.judging import load_judge, usage_of
    from deltalens.ranks.alone import alone
    from deltalens.storage.lock import lock_in
    from deltalens.trials.result import STEERING_DIRECTORY, SweepResult
    from deltalens.trials.weighing import weighed

    if args.choose_again and args.dry_run:
        raise InputError("--choose-again samples nothing; leave --dry-run out")
    if args.only_side_effects:
        if args.neutral is None or args.choose_again:
            raise InputError("--only-side-effects goes with --neutral, without --choose-again")
        _show(args, _side_effects(args), None)
        return
    if args.choose_again:
        with alone(lock_in(args.run_dir), args.ranks):
            chosen = SweepResult.load(args.run_dir).with_limit(args.max_incoherence)
            result = weighed(chosen, args.run_dir)
            result.save(args.run_dir)
        _show(args, result, None)
        return
    note_command(args.run_dir, args)
    judge = load_judge(args, args.run_dir / STEERING_DIRECTORY)
    result = _sweep(args, judge)
    _show(args, result, usage_of(args, judge))


def _sweep(args: argparse.Namespace, judge: Any) -> Any:
    from deltalens.cli.loading import (
        batch_options,
        fill_from_run,
        load_sae_of_run,
        warn_of_other_model,
    )
    from deltalens.study import Attribution
    from deltalens.trials import sweep
    from deltalens.trials.candidates import activation_of_run, candidate_sets
    from deltalens.trials.setup.settings import Generation

    result = Attribution.load(args.run_dir)
    intervention = _intervention(args, result)
    args.strengths = args.strengths or list(intervention.strengths)
    args.unsteered_samples = args.unsteered_samples or 5 * args.samples
    fill_from_run(args, result.metadata)
    prompts = _prompts(args, result)
    sae = load_sae_of_run(args, result.metadata)
    models, tokenizer = _models(args, both_ways=args.both_ways)
    engines = load_engines(args, models, tokenizer)
    warn_of_other_model(models["away"], args, result.metadata)
    activation = args.ranks.from_first(
        lambda: activation_of_run(
            args.run_dir,
            result,
            models,
            tokenizer,
            sae,
            chat_template_kwargs=args.chat_template_kwargs,
            progress=not args.quiet,
        )
    )
    sets = candidate_sets(
        result,
        activation,
        sae,
        rankings=args.sets,
        top=args.top,
        n_random=args.random,
        n_matched=args.matched,
        ablating=intervention.kind == "ablate",
        together=args.together,
        greedy=args.greedy,
        seed=args.seed,
    )
    steered = ("away",) if intervention.kind == "ablate" else tuple(models)
    return sweep(
        {direction: models[direction] for direction in steered},
        tokenizer,
        prompts,
        sae,
        sets,
        judge,
        run=args.run_dir,
        site=result.site,
        generation=Generation(args.max_new_tokens, args.temperature, args.seed, args.steer_tokens),
        intervention=intervention,
        baseline=result.baseline if intervention.kind == "ablate" else None,
        strengths=args.strengths,
        samples=args.samples,
        unsteered_samples=args.unsteered_samples,
        max_incoherence=args.max_incoherence,
        judge_sees=args.judge_sees,
        chat_template_kwargs=args.chat_template_kwargs,
        engines=engines and {direction: engines[direction] for direction in steered},
        adaptive=args.adaptive,
        greedy=args.greedy,
        prices=prices_of(args),
        neutral=None if args.neutral is None else _neutral(args),
        ranks=args.ranks,
        progress=not args.quiet,
        **batch_options(args),
    )


def _intervention(args: argparse.Namespace, result: Any) -> Any:
    from deltalens.trials import Intervention
    from deltalens.trials.interventions import Reference

    if args.both_ways and args.intervention == "ablate":
        raise InputError("ablation steers away only; leave --both-ways out")
    return Intervention(
        args.intervention,
        of=result.metadata["options"].get("score", "direction")
        if args.intervention == "ablate"
        else "direction",
        reference=None if args.clamp is None else Reference.parse(args.clamp),
        only_active=args.only_active,
    )


def _models(args: argparse.Namespace, *, both_ways: bool) -> tuple[dict[Any, Any], Any]:
    """The models by the direction they are steered in, and their tokenizer."""
    from deltalens.cli.loading import load_model, load_two_models

    if args.against is None:
        model, tokenizer = load_model(args)
        return {"away": model, **({"toward": model} if both_ways else {})}, tokenizer
    away, toward, tokenizer = load_two_models(args, args.against)
    return {"away": away, "toward": toward}, tokenizer


def _neutral(args: argparse.Namespace) -> Any:
    from deltalens.pairs import read_texts
    from deltalens.trials import Neutral

    texts = read_texts(args.neutral)
    return Neutral(texts, args.neutral_texts, args.neutral_tokens)


def _side_effects(args: argparse.Namespace) -> Any:
    """Of the sweep that is there."""
    from deltalens.cli.loading import batch_options, fill_from_run, load_sae_of_run
    from deltalens.study import Attribution
    from deltalens.trials import side_effects
    from deltalens.trials.result import SweepResult

    arms, result = SweepResult.load(args.run_dir).arms, Attribution.load(args.run_dir)
    intervention = _intervention(args, result)
    fill_from_run(args, result.metadata)
    neutral, sae = _neutral(args), load_sae_of_run(args, result.metadata)
    models, tokenizer = _models(args, both_ways="toward" in arms)
    return side_effects(
        args.run_dir,
        {direction: models[direction] for direction in arms if direction in models},
        tokenizer,
        sae,
        neutral,
        intervention=intervention,
        baseline=result.baseline if intervention.kind == "ablate" else None,
        progress=not args.quiet,
        ranks=args.ranks,
        **batch_options(args),
    )


def _prompts(args: argparse.Namespace, result: Any) -> list[Any]:
    from deltalens.pairs import read_questions

    if args.prompts is not None:
        return [question.prompt for question in read_questions(args.prompts, as_chat=args.as_chat)]
    unique = {str(prompt): prompt for pair in result.pairs for prompt in pair.prompts}
    return list(unique.values())


def _show(args: argparse.Namespace, result: Any, usage: Any) -> None:
    from deltalens.cli.judging import usage_line
    from deltalens.cli.output import print_json, print_line
    from deltalens.cli.sweep_table import print_sweep, sweep_summary

    if args.json:
        said = {} if usage is None else {"usage": usage}
        print_json({"run": str(args.run_dir), **sweep_summary(result), **said})
        return
    print_sweep(result)
    if usage is not None:
        print_line(usage_line(usage))
    print_line(f"every completion and its grade is in {args.run_dir / 'steering'}")
