"""From arguments to a model, an SAE, a site and a baseline."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from deltalens.errors import InputError


def load_model(args: argparse.Namespace) -> tuple[Any, Any]:
    """The causal language model and its tokenizer, in eval mode on the chosen device.

    Raises :class:`InputError` when either cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {} if args.revision is None else {"revision": args.revision}
    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model, **options)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, **options)
    except Exception as error:  # transformers raises whatever the loading met
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot load the model {args.model!r}: {reason}; "
            "give a directory or hub id of a transformers causal language model"
        ) from error
    return model.to(choose_device(args.device)).eval(), tokenizer


def choose_device(name: str) -> Any:
    """A torch device; "auto" is CUDA where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name!r} is no device; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def load_sae(args: argparse.Namespace) -> Any:
    """The SAE of --sae."""
    from deltalens.sae import load_sae

    return load_sae(args.sae, format=args.sae_format, tensor=args.sae_tensor, part=args.sae_part)


def choose_site(args: argparse.Namespace, sae: Any) -> int | str:
    """--site, else the SAE's record; :class:`InputError` when neither says."""
    if args.site is not None:
        return args.site
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


def load_baseline(
    text: str,
    model: Any,
    tokenizer: Any,
    site: Any,
    sinks: Any,
    quiet: bool,
    sae: Any = None,
    chat_template_kwargs: Any = None,
) -> Any:
    """--baseline: the word zero, a saved baseline, or texts to average over now, with the mean of
    the latents of ``sae`` if one is given."""
    from deltalens.lm import resolve_site
    from deltalens.pairs import read_texts
    from deltalens.study import (
        Baseline,
        mean_activation,
    )

    if text == "zero":
        return Baseline.zero(resolve_site(model, site).d_model)
    if Path(text).suffix == ".safetensors":
        return Baseline.load(text)
    return mean_activation(
        model,
        tokenizer,
        read_texts(text),
        site=site,
        sae=sae,
        sinks=sinks,
        chat_template_kwargs=chat_template_kwargs,
        progress=not quiet,
    )


def sinks_of(args: argparse.Namespace) -> Any:
    """--keep-sinks or --sink-norm as a :class:`~deltalens.Sinks`, None to keep them."""
    from deltalens.lm import Sinks
    from deltalens.lm.sinks import SINKS

    if args.keep_sinks:
        return None
    return SINKS if args.sink_norm is None else Sinks(args.sink_norm)


def batch_options(args: argparse.Namespace) -> dict[str, Any]:
    """--batch-tokens where it was given."""
    return {} if args.batch_tokens is None else {"batch_tokens": args.batch_tokens}


def fill_from_run(args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """The run's own model and SAE, unless others were named."""
    recorded = metadata["model"]
    if args.model is None:
        args.model, args.revision = recorded["name"], args.revision or recorded["revision"]
    fill_chat_template(args, metadata["options"].get("chat_template_kwargs"))
    fill_sae(args, metadata)


def fill_chat_template(args: argparse.Namespace, recorded: dict[str, Any] | None) -> None:
    """The chat template's arguments as they were recorded, unless others were given."""
    if args.chat_template_kwargs is None:
        args.chat_template_kwargs = recorded


def fill_from_pairs(args: argparse.Namespace) -> None:
    """The chat template's arguments that the answers of --pairs were sampled with."""
    from deltalens.pairs.pair_set import read_settings
    from deltalens.study.attribution import read_metadata

    if args.pairs.is_dir():
        made = read_metadata(args.pairs)["options"]
    else:
        made = read_settings(args.pairs).get("sampling", {})
    fill_chat_template(args, made.get("chat_template_kwargs"))


def fill_sae(args: argparse.Namespace, metadata: dict[str, Any]) -> None:
    """The SAE that a run was made with, unless another was named."""
    if args.sae is None:
        if "path" not in metadata["sae"]:
            raise InputError(f"{args.run_dir} does not say which SAE was used; give --sae")
        args.sae = metadata["sae"]["path"]
        args.sae_format = args.sae_format or metadata["sae"].get("format")
        args.sae_part = args.sae_part or metadata["sae"].get("part")


def load_other_model(args: argparse.Namespace, name: str) -> Any:
    """A second model of the same tokenizer, loaded like the first."""
    other = argparse.Namespace(**{**vars(args), "model": name, "revision": None})
    return load_model(other)[0]


def load_sae_of_run(args: argparse.Namespace, metadata: dict[str, Any]) -> Any:
    """The SAE that a run was made with; :class:`InputError` when another was named."""
    fill_sae(args, metadata)
    sae = load_sae(args)
    if sae.fingerprint != metadata["fingerprints"]["sae"]:
        raise InputError(f"{args.sae} is not the SAE that {args.run_dir} was made with")
    return sae
