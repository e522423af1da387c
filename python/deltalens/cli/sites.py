"""From --site and --sae to the sites of a command, and what belongs to each."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.cli.loading import batch_options, choose_site, warn_of_other_site
from deltalens.errors import InputError


@dataclass(frozen=True)
class Chosen:
    """Sites and an SAE for each (None where no --sae was given); a single one is a plain call."""

    sites: list[int | str]
    saes: list[Any]

    @property
    def several(self) -> bool:
        return len(self.sites) > 1

    def given(self, values: list[Any]) -> Any:
        """What a function takes for these sites: the only one, or all."""
        return values if self.several else values[0]

    def found(self, result: Any) -> list[Any]:
        """A function's results in the order of the sites."""
        return list(result.values()) if self.several else [result]


def load_saes(args: argparse.Namespace) -> list[Any]:
    """Those of --sae: one for each path, or all below a directory that is none itself."""
    from deltalens.sae.formats.below import saes_below

    if args.sae_part is None and args.sae_tensor is None:
        loaded = []
        for path in args.sae:
            below = saes_below(path, format=args.sae_format)
            loaded += below or [_load_one(args, path)]
        return loaded
    return [_load_one(args, path) for path in args.sae]


def named_saes(args: argparse.Namespace, saes: list[Any]) -> list[Any]:
    """The SAEs, the only one under Neuronpedia's name of --neuronpedia where that is given."""
    from deltalens.sae.formats.neuronpedia import check_name

    if args.neuronpedia is None:
        return saes
    if len(saes) > 1:
        raise InputError(
            f"--neuronpedia names one SAE, of {len(saes)}; give it to `report`, run by run"
        )
    check_name(args.neuronpedia, saes[0].site)
    return [dataclasses.replace(saes[0], neuronpedia=args.neuronpedia)]


def _load_one(args: argparse.Namespace, path: str) -> Any:
    from deltalens.sae import load_sae

    return load_sae(path, format=args.sae_format, tensor=args.sae_tensor, part=args.sae_part)


def choose_sites(args: argparse.Namespace, model: Any, saes: list[Any]) -> Chosen:
    """The sites of --site, else those that the SAEs say they are of, each with its SAE.

    Raises :class:`InputError` where an SAE cannot be told, by its own record, to be a site's.
    """
    from deltalens.study.running.matching import match_saes, sites_of

    if len(saes) == 1 and (args.site is None or len(args.site) == 1):
        site = choose_site(None if args.site is None else args.site[0], saes[0])
        warn_of_other_site(model, site, saes[0])
        return Chosen([site], saes)
    if args.site is None:
        return Chosen(list(sites_of(model, saes)), saes)
    matched = match_saes(model, args.site, saes)
    used = set(map(id, matched))
    spare = [sae for sae in saes if id(sae) not in used]
    if spare and len(args.sae) == len(saes):
        raise InputError(
            f"{spare[0].path} says it was trained at {spare[0].site}, which is none of the sites "
            "given; leave it out or name its site"
        )
    return Chosen(args.site, matched)


def load_baselines(
    args: argparse.Namespace, model: Any, tokenizer: Any, chosen: Chosen, saes: list[Any] | None
) -> list[Any]:
    """--baseline for each site: the word zero, saved baselines (a file, or a directory with one for
    each site), or texts to average over now, with the mean of the latents of ``saes`` if given."""
    from deltalens.cost.dry_run import dry_run, is_dry, preliminary
    from deltalens.lm.several import resolve_sites
    from deltalens.study import Baseline
    from deltalens.study.activation.mean import baseline_files

    places = resolve_sites(model, chosen.sites)
    path = Path(args.baseline)
    if args.baseline == "zero":
        return [Baseline.zero(place.d_model) for place in places]
    if path.suffix == ".safetensors":
        return [Baseline.load(path)] * len(places)
    if any(path.glob("site-*.safetensors")):
        return list(map(Baseline.load, baseline_files(path, places, several=True)))
    if is_dry() and not args.out.exists():
        with dry_run():
            _averaged(args, model, tokenizer, chosen, saes)
        return [Baseline.zero(place.d_model) for place in places]
    with preliminary():
        return chosen.found(_averaged(args, model, tokenizer, chosen, saes))


def _averaged(
    args: argparse.Namespace, model: Any, tokenizer: Any, chosen: Chosen, saes: list[Any] | None
) -> Any:
    from deltalens.cli.loading import sinks_of
    from deltalens.pairs import read_texts
    from deltalens.study import mean_activation

    return mean_activation(
        model,
        tokenizer,
        read_texts(args.baseline),
        site=chosen.given(chosen.sites),
        sae=None if saes is None else chosen.given(saes),
        sinks=sinks_of(args),
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )


def out_directories(out: Path, model: Any, chosen: Chosen) -> list[Path]:
    """Where each site's results go: ``out`` itself, or a directory for each of several below it."""
    from deltalens.lm.several import resolve_sites
    from deltalens.study.run import site_directory

    if not chosen.several:
        return [out]
    return [site_directory(out, place) for place in resolve_sites(model, chosen.sites)]
