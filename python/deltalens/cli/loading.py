"""From arguments to a model, an SAE, a site and a baseline."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalens.errors import InputError


def load_model(args: argparse.Namespace) -> tuple[Any, Any]:
    """The language model of --model and its tokenizer, in eval mode where they are to compute.

    Raises :class:`InputError` when either cannot be loaded.
    """
    from deltalens.cli.models.load import load_one
    from deltalens.cli.models.source import ModelSource

    return load_one(ModelSource.of(args))


def load_two_models(args: argparse.Namespace, against: str) -> tuple[Any, Any, Any]:
    """The model of --model, another of the same tokenizer, and the tokenizer."""
    from deltalens.cli.models.load import load_two
    from deltalens.cli.models.source import ModelSource

    source = ModelSource.of(args)
    return load_two(source, source.other(against))


def load_sae(args: argparse.Namespace) -> Any:
    """The SAE of --sae."""
    from deltalens.sae import load_sae

    return load_sae(args.sae, format=args.sae_format, tensor=args.sae_tensor, part=args.sae_part)


def choose_site(site: int | str | None, sae: Any) -> int | str:
    """--site, else the SAE's record; :class:`InputError` when neither says."""
    if site is not None:
        return site
    if sae.site is None:
        raise InputError(f"{sae.path} does not say where it was trained; give --site LAYER")
    return sae.site


def warn_of_other_site(model: Any, site: int | str, sae: Any) -> None:
    """One warning when the SAE says that it was trained elsewhere than at ``site``."""
    from deltalens.lm import is_site, resolve_site

    if sae.site is None:
        return
    used = resolve_site(model, site)
    if not is_site(model, sae.site, used):
        warnings.warn(
            f"the SAE says it was trained at {sae.site}, but the site is {used.name}", stacklevel=2
        )


def sinks_of(args: argparse.Namespace) -> Any:
    """--keep-sinks or --sink-norm as a :class:`~deltalens.Sinks`, None to keep them."""
    from deltalens.lm import Sinks
    from deltalens.lm.sinks import SINKS

    if args.keep_sinks:
        return None
    if args.sink_norm is None:
        args.sink_norm = SINKS.times_median
    return Sinks(args.sink_norm)


def batch_options(args: argparse.Namespace) -> dict[str, Any]:
    """--batch-tokens where it was given."""
    return {} if args.batch_tokens is None else {"batch_tokens": args.batch_tokens}


def fill_from_run(args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """The run's own model and SAE, unless others were named."""
    fill_model_from_run(args, metadata)
    fill_sae(args, metadata)


def fill_model_from_run(args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """The run's own model, unless another was named."""
    if args.model is None:
        recorded = metadata["model"]
        named = {"model": recorded["name"], "revision": recorded["revision"]}
        for name, value in (named | metadata.get("loading", {})).items():
            if getattr(args, name) in (None, "auto"):
                setattr(args, name, value)
    fill_chat_template(args, metadata["options"].get("chat_template_kwargs"))


def fill_chat_template(args: argparse.Namespace, recorded: dict[str, Any] | None) -> None:
    """The chat template's arguments as they were recorded, unless others were given."""
    if args.chat_template_kwargs is None:
        args.chat_template_kwargs = recorded


def load_pairs(args: argparse.Namespace, path: Path) -> list[Any]:
    """The pairs of a file or run, whose fields are named by the arguments."""
    from deltalens.pairs import read_pairs

    return read_pairs(
        path,
        prompt_field=args.prompt_field,
        positive=args.positive,
        negative=args.negative,
        as_chat=args.as_chat,
    )


def fill_from_pairs(args: argparse.Namespace, paths: Sequence[Path]) -> None:
    """The chat template's arguments that the pairs' answers were sampled with.

    Raises :class:`InputError` where files differ in them and none were given.
    """
    made = {path: _template_of_pairs(path) for path in paths}
    first = paths[0]
    other = next((path for path in paths if made[path] != made[first]), None)
    if other is not None and args.chat_template_kwargs is None:
        raise InputError(
            f"{first} and {other} were sampled with different arguments of the chat template "
            f"({made[first]} and {made[other]}); study them apart or give --chat-template-kwargs"
        )
    fill_chat_template(args, made[first])


def _template_of_pairs(path: Path) -> dict[str, Any] | None:
    from deltalens.pairs.pair_set import read_settings
    from deltalens.study.attribution import read_metadata

    if path.is_dir():
        made = read_metadata(path)["options"]
    else:
        made = read_settings(path).get("sampling", {})
    return made.get("chat_template_kwargs")


def loading_record(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`fill_from_run` needs to load a run's model again, as an entry of its metadata."""
    from deltalens.cli.models.source import ModelSource

    return {"loading": ModelSource.of(args).recorded()}


def warn_of_other_model(model: Any, args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """One warning when a run is continued with a model that computes otherwise than its own."""
    from deltalens.lm.model.identity import model_fingerprint

    if model_fingerprint(model) != metadata["fingerprints"]["model"]:
        warnings.warn(
            f"{args.model} is not the model, or not the dtype, that {args.run_dir} was made with",
            stacklevel=2,
        )


def fill_sae(args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """The SAE that a run was made with, unless another was named."""
    if args.sae is None:
        if "path" not in metadata["sae"]:
            raise InputError(f"{args.run_dir} does not say which SAE was used; give --sae")
        args.sae = metadata["sae"]["path"]
        args.sae_format = args.sae_format or metadata["sae"].get("format")
        args.sae_part = args.sae_part or metadata["sae"].get("part")


def load_sae_of_run(args: argparse.Namespace, metadata: dict[str, Any]) -> Any:
    """The SAE that a run was made with; :class:`InputError` when another was named."""
    fill_sae(args, metadata)
    sae = load_sae(args)
    if sae.fingerprint != metadata["fingerprints"]["sae"]:
        raise InputError(f"{args.sae} is not the SAE that {args.run_dir} was made with")
    return sae
