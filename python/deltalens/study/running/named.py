"""Errors and warnings that say which of several studies they are of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from deltalens.errors import InputError, Unfinished


@contextmanager
def named(label: str | None) -> Iterator[None]:
    """Errors and warnings within the context begin with ``label``, where there is one."""
    if label is None:
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except Unfinished as error:
            raise Unfinished(f"{label}: {error}") from error
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
    for warning in caught:
        warnings.warn(f"{label}: {warning.message}", warning.category, stacklevel=2)
