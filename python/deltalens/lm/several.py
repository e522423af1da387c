"""One site or several: what a call is given for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from torch import nn

from deltalens.errors import InputError
from deltalens.lm.sites import Site, resolve_site

T = TypeVar("T")

AnySite: TypeAlias = int | str | Site
"""A site as :func:`~deltalens.lm.resolve_site` takes it."""

SeveralSites: TypeAlias = list[AnySite] | tuple[AnySite, ...]
"""Sites that are read in one pass; what is found has a value for each, under the name given."""


@dataclass(frozen=True)
class Asked:
    """What a call named: one site, whose result is the call's, or several, with one for each."""

    names: list[AnySite]
    several: bool

    @classmethod
    def of(cls, site: AnySite | SeveralSites) -> Asked:
        """The one site or all of them, as they were given."""
        if isinstance(site, (list, tuple)):
            return cls(list(site), several=True)
        return cls([site], several=False)

    def each(self, values: Any, what: str) -> list[Any]:
        """``values`` in the order of the sites: of several a list in that order or a dict by site,
        of one the value itself.

        Raises :class:`InputError` naming ``what`` where there is not one for each site.
        """
        return _for_each(self.names, values, what) if self.several else [values]

    def answer(self, found: Sequence[T]) -> T | dict[AnySite, T]:
        """What the call returns: the only result, or a dict by site, as the sites were named."""
        return dict(zip(self.names, found, strict=True)) if self.several else found[0]


def resolve_sites(model: nn.Module, given: Sequence[AnySite]) -> list[Site]:
    """The points that ``given`` names, in that order.

    Raises :class:`InputError` as :func:`~deltalens.lm.resolve_site` does, for none at all, and for
    two names of one point.
    """
    if not given:
        raise InputError("no site given; name at least one")
    found: dict[Site, AnySite] = {}
    for name in given:
        site = resolve_site(model, name)
        if site in found:
            raise InputError(
                f"{found[site]!r} and {name!r} are both {site.name}; name each site once"
            )
        found[site] = name
    return list(found)


def _for_each(given: Sequence[AnySite], values: Any, what: str) -> list[Any]:
    if isinstance(values, Mapping):
        missing = [site for site in given if site not in values]
        if missing:
            raise InputError(
                f"no {what} for site {missing[0]!r}; there are those of "
                f"{', '.join(map(repr, values))}"
            )
        return [values[site] for site in given]
    if not isinstance(values, (list, tuple)):
        raise InputError(
            f"{len(given)} sites need a {what} each: a list in their order or a dict by site, got "
            f"{type(values).__name__}"
        )
    if len(values) != len(given):
        raise InputError(f"{len(given)} sites need a {what} each, got {len(values)}")
    return list(values)
