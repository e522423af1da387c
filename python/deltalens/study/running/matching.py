"""Which SAE is of which site, by what the SAEs say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from deltalens.errors import InputError
from deltalens.lm import Site, resolve_site
from deltalens.lm.several import AnySite, resolve_sites
from deltalens.sae import SAE

_LISTED = 6


def sites_of(model: nn.Module, saes: Sequence[SAE]) -> list[str]:
    """The canonical names of the sites that SAEs say they are of, in their order.

    Raises :class:`InputError` for one that says nothing, or names no site of this model, and for
    two of one site.
    """
    names = []
    for sae in saes:
        if sae.site is None:
            raise InputError(f"{_called(sae)} does not say where it was trained; give --site")
        names.append(resolve_site(model, sae.site).name)
    for name in names:
        _only(name, [sae for sae, of in zip(saes, names, strict=True) if of == name])
    return names


def match_saes(model: nn.Module, given: Sequence[AnySite], saes: Sequence[SAE]) -> list[SAE]:
    """For each site the one of ``saes`` that says it was trained there.

    Where there are as many as sites, one that says nothing is that of the site in its place.
    Raises :class:`InputError` for a site of which there is none, or more than one.
    """
    sites = resolve_sites(model, given)
    own: list[Any] = [_site_of(model, sae) for sae in saes]
    if len(saes) == len(sites):
        own = [
            place if sae.site is None else of
            for sae, of, place in zip(saes, own, sites, strict=True)
        ]
    found = []
    for site in sites:
        at = [sae for sae, of in zip(saes, own, strict=True) if of == site]
        if not at:
            raise InputError(f"no SAE says it was trained at {site.name}; {_what_there_is(saes)}")
        found.append(_only(site.name, at))
    return found


def _site_of(model: nn.Module, sae: SAE) -> Site | None:
    try:
        return None if sae.site is None else resolve_site(model, sae.site)
    except InputError:  # of another model, or at no point of the residual stream
        return None


def _only(name: str, saes: Sequence[SAE]) -> SAE:
    if len(saes) > 1:
        listed = ", ".join(map(_called, saes[:_LISTED])) + (", …" if saes[_LISTED:] else "")
        raise InputError(f"{len(saes)} SAEs say they are of {name}; name one of {listed}")
    return saes[0]


def _called(sae: SAE) -> str:
    return str(sae.path) if sae.part is None else f"{sae.path} (part {sae.part})"


def _what_there_is(saes: Sequence[SAE]) -> str:
    names = list(dict.fromkeys(sae.site or "nothing" for sae in saes))
    return f"they say {', '.join(names[:_LISTED])}" + (", …" if names[_LISTED:] else "")
