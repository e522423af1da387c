"""Whether cibuildwheel would build what is promised: every Python on every platform, no more.

Usage: ``python release/identifiers.py``, where cibuildwheel is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = {
    "linux": {"x86_64": "manylinux_x86_64", "aarch64": "manylinux_aarch64"},
    "macos": {"arm64": "macosx_arm64"},
    "windows": {"AMD64": "win_amd64"},
}


def built(platform: str, arch: str) -> list[str]:
    """What cibuildwheel says."""
    command = ["--print-build-identifiers", "--platform", platform, "--archs", arch, str(ROOT)]
    said = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", *command], stdout=-1, text=True, check=True
    )
    return said.stdout.split()


def main() -> str | None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    promised = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)
    for platform, archs in PLATFORMS.items():
        for arch, tag in archs.items():
            found = built(platform, arch)
            print(platform, arch, *found)
            if found != [f"cp3{minor}-{tag}" for minor in promised]:
                return f"{platform} {arch}: not what pyproject.toml's classifiers promise"
    return None


if __name__ == "__main__":
    sys.exit(main())
