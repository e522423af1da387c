"""``deltalens check-sae``: whether an SAE was loaded as it was trained, for this model and site."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_model,
    add_output,
    add_sae,
    add_site,
)


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "check-sae",
        "rebuild sample text's activations with an SAE and warn of what looks wrong",
        "deltalens check-sae --model google/gemma-2-2b --sae gemma-scope/layer_12/width_16k",
    )
    add_model(parser)
    add_chat_template(parser)
    add_sae(parser)
    add_site(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        help="text file, JSONL file or run directory; default: paragraphs of many kinds",
    )
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check and print."""
    from deltalens.cli.loading import batch_options, choose_site, load_model, load_sae
    from deltalens.cli.output import print_json, print_line, print_table
    from deltalens.pairs import read_texts
    from deltalens.study import check_sae

    texts = None if args.texts is None else read_texts(args.texts)
    sae = load_sae(args)
    site = choose_site(args.site, sae)
    model, tokenizer = load_model(args)
    found = check_sae(
        model,
        tokenizer,
        sae,
        site=site,
        texts=texts,
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )
    if args.json:
        print_json(_as_json(sae, found))
        return
    rows = [[name, text] for name, text in _facts(sae, found) if text is not None]
    print_table(str(sae.path), ("", "value"), rows, left=("", "value"))
    if found.alternatives:
        readings = [[other.name, f"{other.explained:.4f}"] for other in found.alternatives]
        readings.insert(0, ["as loaded", f"{found.compared:.4f}"])
        print_table(
            "Variance explained otherwise", ("reading", "explained"), readings, left=("reading",)
        )
    for warning in found.warnings:
        print_line(f"warning: {warning}")
    if not found.warnings:
        print_line("nothing looks wrong")


def _facts(sae: Any, found: Any) -> list[tuple[str, str | None]]:
    rows, rebuilt = found.rows, found.reconstruction
    facts = [
        ("format", sae.format),
        ("architecture", _architecture(sae)),
        ("trained on", sae.model_name),
        ("trained at", sae.site),
        ("site", found.site.name),
        ("latents × width", f"{sae.W_dec.n_latents} × {sae.W_dec.d_model}"),
        ("dtype", str(sae.W_dec.dtype).removeprefix("torch.")),
        ("decoder norms", f"{rows.least:.4g} … {rows.median:.4g} … {rows.largest:.4g}"),
        ("zero, non-finite rows", f"{len(rows.zero)}, {len(rows.nonfinite)}"),
        ("cos(W_enc, W_dec)", None if rows.cosine is None else f"{rows.cosine:.3f} (median)"),
    ]
    if rebuilt is not None:
        facts += [
            ("variance explained", f"{rebuilt.explained:.4f}"),
            ("cosine of x and x̂", f"{rebuilt.cosine:.4f}"),
            ("L0", f"{rebuilt.l0:.1f}"),
            ("silent latents", f"{len(rebuilt.dead)} on {rebuilt.tokens} tokens"),
            ("tokens left out", f"{found.excluded} (first of a text, or of huge norm)"),
        ]
    return facts


def _architecture(sae: Any) -> str | None:
    from deltalens.errors import InputError

    try:
        encoding = sae.encoding
    except InputError:
        return None
    k = getattr(encoding.activation, "k", None)
    name = type(encoding.activation).__name__.lower()
    return name if k is None else f"{name}, k = {k}"


def _as_json(sae: Any, found: Any) -> dict[str, Any]:
    rows, rebuilt = found.rows, found.reconstruction
    return {
        "format": sae.format,
        "architecture": _architecture(sae),
        "model_name": sae.model_name,
        "trained_at": sae.site,
        "site": found.site.name,
        "n_latents": sae.W_dec.n_latents,
        "d_model": sae.W_dec.d_model,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "decoder_norms": {"min": rows.least, "median": rows.median, "max": rows.largest},
        "zero_rows": rows.zero,
        "nonfinite_rows": rows.nonfinite,
        "encoder_decoder_cosine": rows.cosine,
        "reconstruction": None
        if rebuilt is None
        else {
            "tokens": rebuilt.tokens,
            "excluded": found.excluded,
            "explained": rebuilt.explained,
            "cosine": rebuilt.cosine,
            "l0": rebuilt.l0,
            "silent_latents": len(rebuilt.dead),
        },
        "compared": found.compared,
        "alternatives": {other.name: other.explained for other in found.alternatives},
        "warnings": found.warnings,
    }
