"""Temporary directories, and those that killed processes have left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deltalens.storage.atomic import writing
from deltalens.storage.held import OPEN_IS_HELD, hold

_PREFIX = "deltalens-work-"
_HELD = ".held"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory that is gone afterwards, or else when another process makes one."""
    place = Path(tempfile.gettempdir())
    _remove_left(place)
    with writing(place):
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        file = (directory / (_HELD if OPEN_IS_HELD else f"{_HELD}.tmp")).open("wb")
    try:
        hold(file)
        if not OPEN_IS_HELD:
            os.replace(file.name, directory / _HELD)  # nobody finds it before it is locked
        yield directory
    finally:
        if OPEN_IS_HELD:
            file.close()
        shutil.rmtree(directory, ignore_errors=True)
        file.close()


def _remove_left(place: Path) -> None:
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            with (left / _HELD).open("r+") as file:
                gone = hold(file)
            if gone:
                shutil.rmtree(left, ignore_errors=True)
