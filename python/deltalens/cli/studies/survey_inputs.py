"""What a survey is given: behaviours by name, and SAEs by site and name."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deltalens.cli.sites import Chosen, choose_sites, load_saes
from deltalens.errors import InputError


def behaviour_files(given: Sequence[str]) -> dict[str, Path]:
    """Pairs by their behaviour's name: as NAME=FILE says, else the file's own.

    Raises :class:`InputError` for two of one name.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, place = _named(text)
        path = Path(place)
        name = name or (path.resolve().name if path.is_dir() else path.stem)
        if name in found:
            raise InputError(
                f"{found[name]} and {path} are both called {name}; call them NAME=FILE"
            )
        found[name] = path
    return found


class NamedSAEs(NamedTuple):
    """Those of one name, and the arguments as if --sae had only named them."""

    args: argparse.Namespace
    saes: list[Any]


def load_by_name(args: argparse.Namespace) -> dict[str | None, NamedSAEs]:
    """The SAEs of --sae, by the names that they were given; None where they were given none."""
    paths: dict[str | None, list[str]] = {}
    for text in args.sae:
        name, path = _named(text)
        paths.setdefault(name, []).append(path)
    if None in paths and len(paths) > 1:
        raise InputError(
            f"--sae {paths[None][0]} has no name, but others have one; call all of them NAME=PATH"
        )
    found = {}
    for name, some in paths.items():
        own = copy.copy(args)
        own.sae = some
        found[name] = NamedSAEs(own, load_saes(own))
    return found


def choose_by_name(model: Any, named: Mapping[str | None, NamedSAEs]) -> dict[str | None, Chosen]:
    """For each name the sites with their SAEs.

    Raises :class:`InputError` where the SAEs of a name are not of the sites of the others.
    """
    from deltalens.lm.several import resolve_sites

    found = {name: choose_sites(one.args, model, one.saes) for name, one in named.items()}
    (first, of_first), *others = found.items()
    wanted = resolve_sites(model, of_first.sites)
    for name, one in others:
        if resolve_sites(model, one.sites) != wanted:
            raise InputError(
                f"the SAEs called {first} and {name} are of different sites "
                f"({_listed(of_first.sites)} and {_listed(one.sites)}); name the sites with --site"
            )
    return found


def decoders_of(chosen: Mapping[str | None, Chosen]) -> dict[Any, Any]:
    """As :func:`deltalens.survey` takes them: an SAE for each site, or several by name."""
    first = next(iter(chosen.values()))
    if None in chosen:
        return dict(zip(first.sites, first.saes, strict=True))
    return {
        site: {name: one.saes[place] for name, one in chosen.items()}
        for place, site in enumerate(first.sites)
    }


def _named(text: str) -> tuple[str | None, str]:
    """NAME=PATH taken apart; a path that has an equals sign itself stays whole."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists() or "/" in name:
        return None, text
    return name, path


def _listed(sites: Sequence[Any]) -> str:
    return ", ".join(map(str, sites))
