"""Results as data frames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deltalens.errors import InputError


def frame(columns: Mapping[str, Any]) -> Any:
    """A ``pandas.DataFrame``; :class:`InputError` where there is no pandas."""
    try:
        import pandas
    except ImportError as error:
        raise InputError("data frames need pandas: pip install pandas") from error
    return pandas.DataFrame(columns)


def frame_of_rows(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    """The same of rows; what one does not have is None."""
    return frame({name: [row.get(name) for row in rows] for name in names})
