"""The wheel in a folder that is for this Python.

Usage: ``python release/own_wheel.py FOLDER``. Prints its path; there has to be one.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: Path) -> Path:
    (found,) = folder.glob("*-cp{}{}-*.whl".format(*sys.version_info))
    return found


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
