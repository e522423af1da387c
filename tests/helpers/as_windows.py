"""Every command that writes, under Windows's rules: what it leaves.

Usage: ``python -m helpers.as_windows FOLDER``. Each command runs twice into one directory. Prints a
line of JSON: for each what lies there then, by name, or how it failed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

from helpers.windows_rules import obey


def main(folder: Path) -> None:
    place = folder / "temporary"
    place.mkdir()
    tempfile.tempdir = str(place)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    obey(folder)
    from helpers.writers import WRITERS, make_small, prepare

    make_small()
    prepare(folder)
    left = {name: _left(folder, name) for name in WRITERS}
    left["temporary"] = _names(place)
    print(json.dumps(left))


def _left(folder: Path, name: str) -> list[str] | str:
    from helpers.writers import WRITERS, begin

    out = folder / f"of-{name.replace(' ', '-')}"
    begin(folder, name, out)
    try:
        for _ in range(2):
            WRITERS[name](out)
    except Exception:
        return traceback.format_exc()
    return _names(out)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
