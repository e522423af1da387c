"""Lines of examples one after the other, which show the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from deltalens.examples.text import Line
from deltalens.visible.frame import frame_of_rows
from deltalens.visible.shown import Shown
from deltalens.visible.view import ROWS, Table, View

COLUMNS = ("latent", "tokens", "active", "frequency", "mean", "max", "windows", "promotes")
_SHOWN = ("latent", "active", "max", "promotes", "largest activation")


class ExampleLines(Shown, Iterator[Line]):
    """The lines as they are read; showing or converting them reads the file anew.

    read: begins a reading; total: how many lines have examples.
    """

    def __init__(self, read: Callable[[], Iterator[Line]], total: int) -> None:
        self._read, self._total, self._lines = read, total, read()

    def __next__(self) -> Line:
        return next(self._lines)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``: a row for each latent with examples, without the windows.

        Raises :class:`InputError` where there is no pandas, or the file has lost lines.
        """
        return frame_of_rows(COLUMNS, [_row(line) for line in self._read() if "examples" in line])

    def _view(self) -> View:
        rows: list[list[str]] = []
        for line in self._read():
            if len(rows) == ROWS:
                break
            if "examples" in line:
                rows.append(_cells(line))
        table = Table(_SHOWN, rows, self._total, left=_SHOWN[-2:])
        return View("Where latents are active", (), [table])


def _row(line: Line) -> Line:
    promotes = [token[0] for token in line.get("promotes", ())]
    return {**line["examples"], "latent": line["latent"], "promotes": promotes}


def _cells(line: Line) -> list[str]:
    found = line["examples"]
    return [
        str(line["latent"]),
        f"{found['frequency']:.3%}",
        f"{found['max']:.4g}",
        " ".join(token[0] for token in line.get("promotes", ())[:5]),
        "".join(map(str, chain.from_iterable(one["tokens"] for one in found["top"][:1]))),
    ]
