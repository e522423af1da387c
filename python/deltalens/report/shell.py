"""One HTML file that loads nothing, from a template and what stands in it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources


def filled_page(
    template: str, parts: Mapping[str, str], *, styles: Sequence[str], scripts: Sequence[str]
) -> str:
    """The template with ``parts``, which are markup, in place of their names.

    Its script runs by its hash alone, so no other could.
    """
    script = "".join(map(_asset, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    filled = {
        **parts,
        "policy": f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'",
        "style": "".join(map(_asset, styles)),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], _asset(template))


def _asset(name: str) -> str:
    return (resources.files("deltalens.report") / "assets" / name).read_text(encoding="utf-8")
