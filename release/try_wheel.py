"""Tries the deltalens that this Python has installed, with nothing of the repository in reach: its
commands, and the tests of what the extension and the package's data are for.

Usage: ``python release/try_wheel.py [--demo]``, in an environment with the wheel, pytest,
pytest-benchmark, pytest-timeout and hypothesis.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("pyproject.toml", "tests", "bench", "examples")  # by the tests, of the repository
TESTS = [
    "tests/engine/impl",
    "tests/engine/topk",
    "tests/engine/test_contract.py",
    "tests/engine/test_scan.py",
    "tests/organism",
    "tests/test_example_scripts.py",
]
POSIX_TESTS = ["tests/storage"]  # they end processes by signals

INSTALLED = """
from importlib import metadata, util
from pathlib import Path
import deltalens
from deltalens.engine.numerics.extension import cpu_extension
place = Path(metadata.distribution("deltalens").locate_file("deltalens")).resolve()
extension = cpu_extension()
assert extension is not None, "no compiled extension"
kernels = util.find_spec("deltalens.kernels").origin  # imported only where there is a Triton
for file in (deltalens.__file__, kernels, extension.__file__):
    assert place in Path(file).resolve().parents, file
print("deltalens", metadata.version("deltalens"), "in", place)
"""


def main(demo: bool) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        command = str(_script())
        _run(folder, sys.executable, "-c", INSTALLED)
        _run(folder, command, "--version")
        _run(folder, command, "doctor", "--quick")
        if demo:
            _run(folder, command, "demo", "--out", str(folder / "demo-run"))
        tests = [*TESTS, *(POSIX_TESTS if os.name == "posix" else [])]
        _run(folder, sys.executable, "-m", "pytest", "-q", *tests)


def _script() -> Path:
    """The command that was installed, in whatever folder of the environment."""
    files = metadata.distribution("deltalens").files or []
    return next(
        Path(file.locate()) for file in files if file.name in ("deltalens", "deltalens.exe")
    )


def _run(folder: Path, *command: str) -> None:
    print("+", *command, flush=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=folder, check=True, env={**kept, "PYTHONSAFEPATH": "1"})


if __name__ == "__main__":
    main("--demo" in sys.argv[1:])
