"""Results as data frames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deltalens.errors import InputError
from deltalens.visible import is_utf8


def frame(columns: Mapping[str, Any]) -> Any:
    """A ``pandas.DataFrame``; :class:`InputError` where there is no pandas."""
    try:
        import pandas
    except ImportError as error:
        raise InputError("data frames need pandas: pip install pandas") from error
    return pandas.DataFrame(
        {
            name: pandas.Series(values, dtype=object) if _is_no_utf8(values) else values
            for name, values in columns.items()
        }
    )


def frame_of_rows(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    """The same of rows; what one does not have is None."""
    return frame({name: [row.get(name) for row in rows] for name in names})


def _is_no_utf8(values: Any) -> bool:
    """Whether a text has a lone surrogate, as files' names may; pandas's own text cannot."""
    return any(isinstance(value, str) and not is_utf8(value) for value in values)
