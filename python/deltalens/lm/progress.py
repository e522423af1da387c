"""A progress bar that is there when asked for."""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import Any

SWITCH = "DELTALENS_PROGRESS"


class Progress:
    """A tqdm bar over ``total`` units, or nothing at all; ``DELTALENS_PROGRESS=0`` leaves all bars
    out."""

    def __init__(self, shown: bool, title: str, total: int | None) -> None:
        self._bar: Any = None
        if shown and os.environ.get(SWITCH) != "0":
            self._bar = _tqdm()(total=total, desc=title)

    def advance(self, units: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(units)

    def note(self, text: str) -> None:
        """Show ``text`` behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _tqdm() -> Any:
    """Widgets where a notebook has them, text elsewhere, without a word about widgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    return tqdm
