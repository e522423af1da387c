"""LRP as a gradient provider, through the library lxt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.forward import Loss
from deltalens.lm.gradients.providers import BatchGradients, Provider, SiteBatch, plain_gradients
from deltalens.lm.sites import Site


def lrp_gradients(site: Site) -> Provider:
    """Gradients under the AttnLRP rules (Achtibat et al. 2024), so that grad·act is relevance.

    They are of any sites of the model that ``site`` is one of. lxt rewrites whole classes of
    transformers and torch; here that lasts for one pass and is undone, so it must not run beside
    other threads that use the same classes. Raises :class:`InputError` when lxt is missing or does
    not work with the installed transformers, and when it has no rules for the model's family.
    """
    modelling = sys.modules[type(site.module).__module__]
    patch, rules = _rules(modelling)

    def provider(model: Any, at: Sequence[SiteBatch], loss: Loss) -> list[BatchGradients]:
        with _restored([modelling, *rules]):
            patch(modelling, rules)
            return plain_gradients(model, at, loss)

    return provider


def _rules(modelling: Any) -> tuple[Callable[..., None], dict[Any, Any]]:
    """lxt's patching function and its rules for the classes of a modelling module."""
    try:
        from lxt.efficient import monkey_patch
        from lxt.efficient.models import get_default_map
    except ImportError as error:
        raise InputError(_unusable(error)) from error
    try:
        return monkey_patch, get_default_map(modelling)
    except ValueError as error:
        family = modelling.__name__.rpartition("modeling_")[2]
        raise InputError(
            f"lxt has no LRP rules for {family} models; use gradients='plain' or 'integrated'"
        ) from error


def _unusable(error: ImportError) -> str:
    if error.name == "lxt":
        return "gradients='lrp' needs lxt: pip install 'deltalens[lrp]'"
    return (
        f"lxt cannot be imported ({error}); lxt 2.1 needs torchvision and transformers 4, "
        "transformers 5 removed functions it imports"
    )


@contextmanager
def _restored(holders: list[Any]) -> Iterator[None]:
    """Put the attributes of classes and modules back as they are now."""
    before = [(holder, dict(vars(holder))) for holder in holders]
    try:
        yield
    finally:
        for holder, attributes in before:
            for name in vars(holder).keys() - attributes.keys():
                delattr(holder, name)
            for name, value in attributes.items():
                if vars(holder)[name] is not value:
                    setattr(holder, name, value)
