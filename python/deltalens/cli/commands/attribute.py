"""``deltalens attribute``: rank the latents behind the difference of two sets of completions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_neuronpedia,
    add_output,
    add_pairs,
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
        "attribute",
        "rank SAE latents by their effect on positive over negative completions",
        "deltalens attribute --model google/gemma-2-2b --sae gemma-scope/layer_12/width_16k "
        "--pairs pairs.jsonl --baseline baseline.safetensors --out runs/first\n"
        "  deltalens attribute --model google/gemma-2-2b --site 6 12 18 --sae saes/ "
        "--pairs pairs.jsonl --baseline baselines/ --out runs/layers",
    )
    add_model(parser)
    add_sae(parser, several=True)
    add_site(parser, several=True)
    add_pairs(parser)
    add_chat_template(parser)
    add_method(parser)
    add_sinks(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="run directory to write; of several sites each has its own below it, site-12 …",
    )
    add_neuronpedia(parser)
    parser.add_argument("--show", type=int, default=20, help="rows of the table; default: 20")
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Attribute, write the run directories, show the top."""
    from deltalens.cli.loading import (
        fill_from_pairs,
        load_model,
        load_pairs,
        loading_record,
    )
    from deltalens.cli.sites import (
        choose_sites,
        load_baselines,
        load_saes,
        named_saes,
        out_directories,
    )
    from deltalens.study import attribute

    pairs = load_pairs(args, args.pairs)
    fill_from_pairs(args, [args.pairs])
    saes = named_saes(args, load_saes(args))
    model, tokenizer = load_model(args)
    chosen = choose_sites(args, model, saes)
    encoded_with = chosen.saes if args.score == "latent" else None
    note_command(args.out, args)
    baselines = load_baselines(args, model, tokenizer, chosen, encoded_with)
    result = attribute(
        model,
        tokenizer,
        pairs,
        chosen.given(chosen.saes),
        site=chosen.given(chosen.sites),
        baseline=chosen.given(baselines),
        run_dir=args.out,
        metadata=loading_record(args),
        **request_options(args, chosen.saes),
    )
    results = chosen.found(result)
    directories = out_directories(args.out, model, chosen)
    if chosen.several:
        _show_several(args, results, directories)
    else:
        _show(args, results[0])


def _show(args: argparse.Namespace, result: Any) -> None:
    from deltalens.cli.attribution_table import print_attribution
    from deltalens.cli.output import print_json, print_line

    if args.json:
        print_json({"run": str(args.out), **summary(result)})
        return
    print_attribution(result, args.show)
    print_line(f"{len(result.pairs)} pairs; the run is in {args.out}")


def _show_several(args: argparse.Namespace, results: list[Any], directories: list[Path]) -> None:
    from deltalens.cli.attribution_table import print_sites
    from deltalens.cli.output import print_json, print_line

    if args.json:
        runs = zip(results, directories, strict=True)
        print_json(
            {
                "runs": [
                    {"run": str(directory), "site": result.site, **summary(result)}
                    for result, directory in runs
                ]
            }
        )
        return
    print_sites(results)
    print_line(
        f"{len(results[0].pairs)} pairs; the runs are in {directories[0]} … {directories[-1].name}"
    )


def summary(result: Any) -> dict[str, Any]:
    """The ranked latents as plain values."""
    from deltalens.sae.formats.neuronpedia import latent_address, name_of_run
    from deltalens.study.attribution import COLUMNS

    name = name_of_run(result.metadata)
    values = {column: getattr(result, name).tolist() for name, (column, _) in COLUMNS.items()}
    values["sign_unsure"] = result.sign_unsure.tolist()
    return {
        "pairs": len(result.pairs),
        "target": result.metadata["options"].get("target", "loss"),
        "aim": result.metadata.get("aim"),
        "certified": result.metadata.get("certified"),
        "significance": result.metadata.get("significance"),
        "stand_out": result.stand_out,
        "counted": counted(result.metadata),
        "sinks": result.metadata.get("sinks"),
        "first_order": result.metadata.get("first_order"),
        "dominant_tokens": result.metadata.get("dominant_tokens"),
        "latents": [
            {
                "rank": rank + 1,
                "latent": latent,
                **{name: column[rank] for name, column in values.items()},
                "promotes": [token.text for token in result.lens_of(rank).promotes],
                "suppresses": [token.text for token in result.lens_of(rank).suppresses],
                "neuronpedia": None if name is None else latent_address(name, latent),
            }
            for rank, latent in enumerate(result.latents.tolist())
        ],
    }


def counted(metadata: dict[str, Any]) -> dict[str, Any]:
    """Which tokens scores come from, and what their activations were held against."""
    options, counts = metadata["options"], metadata["counts"]
    return {
        "tokens": counts.get("prompt_tokens"),
        "before_positive": counts.get("before_positive", 0),
        "before_negative": counts.get("before_negative", 0),
        "prefix_tokens": options.get("prefix_tokens", 0),
        "align": options.get("align"),
    }
