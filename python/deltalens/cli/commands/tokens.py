"""``deltalens tokens``: a pair token by token, prompt and both completions side by side."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_output,
    positive_int,
)
from deltalens.errors import InputError, quoted


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "tokens",
        "show a run's pairs token by token: the prompt tokens that a latent's score comes from "
        "and both completions' log-probabilities side by side",
        "deltalens tokens runs/first\n  deltalens tokens runs/first --pair health-3-1 --latent 17",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    parser.add_argument("--pair", metavar="ID", help="its id or, without ids, its number from 1")
    parser.add_argument("--latent", type=int, help="with --pair: default: the first of the ranking")
    parser.add_argument(
        "--show", type=positive_int, default=40, help="rows of a table; default: 40"
    )
    add_model(parser, required=False)
    add_chat_template(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compute the log-probabilities unless the run has them, keep them there, show."""
    from deltalens.study import Attribution
    from deltalens.study.tokens.log_probs import read_log_probs

    result = Attribution.load(args.run_dir)
    number = None if args.pair is None else _find(result, args.pair)
    column = _column(args, result)
    found = read_log_probs(args.run_dir)
    args.only_shown = found is not None
    if found is None:
        found = _compute(args, result)
    if len(found) != len(result.pairs):
        raise InputError(
            f"{args.run_dir} has log-probabilities of {len(found)} pairs and {len(result.pairs)} "
            "pairs; delete token_log_probs.jsonl and run this again"
        )
    if number is None:
        _show_all(args, result, found)
    else:
        _show_one(args, result, number, column, found[number])


def _find(result: Any, name: str) -> int:
    names = [pair.id or str(number) for number, pair in enumerate(result.pairs, start=1)]
    if name not in names:
        raise InputError(f"no pair {quoted(name)}; there are {quoted(names[0])} … and others")
    return names.index(name)


def _column(args: argparse.Namespace, result: Any) -> int:
    """The place of --latent among those whose effects by token the run has."""
    if args.latent is None:
        return 0
    if args.pair is None:
        raise InputError("--latent is for --pair: name one, or leave it out")
    kept = 0 if result.token_effects is None else result.token_effects.values[0].shape[1]
    ranked = result.latents[:kept].tolist()
    if args.latent not in ranked:
        raise InputError(
            f"the run has no effects by token of latent {args.latent}; it has those of its first "
            f"{kept} ranked latents"
        )
    return ranked.index(args.latent)


def _compute(args: argparse.Namespace, result: Any) -> Any:
    from deltalens.cli.loading import (
        batch_options,
        fill_model_from_run,
        load_model,
        warn_of_other_model,
    )
    from deltalens.study.tokens.log_probs import pair_log_probs, save_log_probs

    fill_model_from_run(args, result.metadata)
    model, tokenizer = load_model(args)
    warn_of_other_model(model, args, result.metadata)
    found = pair_log_probs(
        model,
        tokenizer,
        result.pairs,
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )
    save_log_probs(args.run_dir, found)
    return found


def _show_all(args: argparse.Namespace, result: Any, found: Any) -> None:
    from deltalens.cli.output import print_json, print_line, print_table

    names = [pair.id or str(number) for number, pair in enumerate(result.pairs, start=1)]
    sides = [(both.positive, both.negative) for both in found]
    if args.json:
        rows = [
            {
                "pair": name,
                **{
                    side: {"log_p": one.total, "tokens": len(one.tokens)}
                    for side, one in zip(("positive", "negative"), both, strict=True)
                },
            }
            for name, both in zip(names, sides, strict=True)
        ]
        print_json({"run": str(args.run_dir), "pairs": rows})
        return
    table = [
        [name, *(cell for one in both for cell in (f"{one.total:.2f}", str(len(one.tokens))))]
        for name, both in zip(names, sides, strict=True)
    ]
    columns = ("pair", "log p", "tokens", "log p without", "tokens without")
    title = "Completions with the behaviour and without it"
    print_table(title, columns, table[: args.show], left=columns[:1])
    print_line(f"{len(table)} pairs; --pair ID shows one token by token, the report all of them")


def _show_one(args: argparse.Namespace, result: Any, number: int, column: int, both: Any) -> None:
    from deltalens.cli.output import print_json

    latent = int(result.latents[column])
    effects = _effects(result, number, column)
    if args.json:
        name = result.pairs[number].id or str(number + 1)
        prompt = [{"token": token, "effect": effect} for token, effect in effects]
        said = {"run": str(args.run_dir), "pair": name, "latent": latent, "prompt": prompt}
        print_json({**said, **asdict(both)})
        return
    _print_prompt(args.show, latent, effects)
    _print_completions(args.show, both)


def _effects(result: Any, number: int, column: int) -> list[tuple[str, float]]:
    """The pair's counted prompt tokens with the latent's effects; none where they were not kept."""
    kept = result.token_effects
    if kept is None or number >= len(kept.values):
        return []
    return list(zip(kept.tokens[number], kept.values[number][:, column].tolist(), strict=True))


def _print_prompt(show: int, latent: int, effects: list[tuple[str, float]]) -> None:
    """The tokens with the largest effects, in the order of the prompt."""
    from deltalens.cli.output import number, print_line, print_table

    if not effects:
        print_line("no effects by token were kept of this pair")
        return
    largest = sorted(range(len(effects)), key=lambda at: -abs(effects[at][1]))[:show]
    rows = [[str(at + 1), effects[at][0], number(effects[at][1])] for at in sorted(largest)]
    columns = ("place", "prompt token", f"effect of latent {latent}")
    print_table("Where in the prompt", columns, rows, left=columns[1:2])
    if len(rows) < len(effects):
        print_line(f"the {len(rows)} largest of {len(effects)} tokens' effects")


def _print_completions(show: int, both: Any) -> None:
    from deltalens.cli.output import print_line, print_table

    sides = [
        list(zip(one.tokens, one.log_p, strict=True)) for one in (both.positive, both.negative)
    ]
    rows = [
        [str(place), *_cells(left), *_cells(right)]
        for place, (left, right) in enumerate(zip_longest(*sides), start=1)
    ]
    columns = ("place", "with the behaviour", "log p", "without it", "log p without")
    print_table("Both completions", columns, rows[:show], left=(columns[1], columns[3]))
    if len(rows) > show:
        print_line(f"{len(rows) - show} more tokens; --show {len(rows)} shows all")
    print_line(f"in all: log p {both.positive.total:.2f} with, {both.negative.total:.2f} without")


def _cells(token: tuple[str, float] | None) -> tuple[str, str]:
    return ("", "") if token is None else (token[0], f"{token[1]:.3f}")
