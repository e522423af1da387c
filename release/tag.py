"""Whether a tag may be released: ``v`` and the version that the project says, which has a date.

Usage: ``python release/tag.py TAG``. Prints one line and ends with 1 where it may not.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def fault(tag: str, project: str, changes: str) -> str | None:
    """Of ``tag`` beside the texts of pyproject.toml and CHANGELOG.md."""
    version = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)[0]
    if tag != f"v{version}":
        return f"the tag is {tag}, the version {version}; tag v{version}, or raise the version"
    dated = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
    if dated is None:
        return f"CHANGELOG.md has no date for {version}; give it the day of the release"
    return None


def main(tag: str) -> str | None:
    project, changes = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CHANGELOG.md")
    )
    return fault(tag, project, changes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
