"""``deltalens survey``: several behaviours at several sites, studied together and compared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_output,
    add_pair_fields,
    add_sae,
    add_sinks,
    add_site,
)
from deltalens.cli.processes import add_shard, note_command
from deltalens.cli.studies.method import add_method, request_options


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "survey",
        "rank the latents of several behaviours at several sites, with one capture a behaviour and "
        "one scan of each decoder for all, and show what stands out where",
        "deltalens survey advice.jsonl flattery.jsonl --model google/gemma-2-2b --site 6 12 18 "
        "--sae saes/ --baseline baselines/ --out runs/survey\n"
        "  deltalens survey advice=runs/pairs-7.jsonl … --sae 16k=saes/16k 65k=saes/65k …",
    )
    parser.add_argument(
        "pairs",
        nargs="+",
        metavar="PAIRS",
        help="pairs of a behaviour, JSONL file or run directory, called by its name or as "
        "NAME=FILE says",
    )
    add_model(parser)
    add_sae(
        parser,
        several=True,
        named="; NAME=PATH … for several at every site, told apart by these names",
    )
    add_site(parser, several=True)
    add_pair_fields(parser)
    add_chat_template(parser)
    add_method(parser, checked=0, why=", as it takes each study longer than all else")
    add_sinks(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory to write: BEHAVIOUR/site-12 … are ordinary runs, survey.html opens them",
    )
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Survey, write runs, reports and the page, show what stands out."""
    from deltalens.cli.loading import (
        fill_from_pairs,
        load_model,
        load_pairs,
        loading_record,
    )
    from deltalens.cli.sites import load_baselines
    from deltalens.cli.studies.survey_inputs import (
        behaviour_files,
        choose_by_name,
        decoders_of,
        load_by_name,
    )
    from deltalens.errors import InputError
    from deltalens.study import survey

    files = behaviour_files(args.pairs)
    behaviours = {name: load_pairs(args, path) for name, path in files.items()}
    fill_from_pairs(args, list(files.values()))
    named = load_by_name(args)
    model, tokenizer = load_model(args)
    chosen = choose_by_name(model, named)
    first = next(iter(chosen.values()))
    encoded_with = first.saes if args.score == "latent" else None
    note_command(args.out, args)
    baselines = load_baselines(args, model, tokenizer, first, encoded_with)
    try:
        survey(
            model,
            tokenizer,
            behaviours,
            decoders_of(chosen),
            baseline=baselines,
            run_dir=args.out,
            metadata=loading_record(args),
            **request_options(args, [sae for one in chosen.values() for sae in one.saes]),
        )
    except InputError:
        if not args.dry_run:
            _write_page(args)  # of the studies that did not fail
        raise
    _write_page(args)
    _show(args)


def _write_page(args: argparse.Namespace) -> None:
    from deltalens.report import write_survey_report
    from deltalens.study.survey.directory import SUMMARY_FILE

    if args.ranks.first and (args.out / SUMMARY_FILE).exists():
        write_survey_report(args.out)


def _show(args: argparse.Namespace) -> None:
    from deltalens.cli.output import print_json, print_line
    from deltalens.cli.studies.survey_table import print_survey
    from deltalens.study import Survey
    from deltalens.study.survey.directory import PAGE_FILE
    from deltalens.study.survey.summary import summary

    found, page = summary(Survey.load(args.out)), args.out / PAGE_FILE
    if args.json:
        print_json({"survey": str(args.out), "page": str(page), **found})
        return
    print_survey(found)
    print_line(f"{len(found['studies'])} studies; {page} shows and opens them")
