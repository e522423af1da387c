"""References to the package's public names, by whichever path code calls them."""

from __future__ import annotations

import pkgutil
from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import deltalens


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Any) -> Any:
    """``deltalens.errors.InputError``, or ``InputError``, is ``deltalens.InputError``.

    What the package has elsewhere is shown as code, without a link.
    """
    path: str = node["reftarget"]
    name = path.rpartition(".")[2]
    if node.get("refdomain") != "py" or path == f"deltalens.{name}":
        return None
    if name not in deltalens.__all__:
        return shown if exists(path) else None
    python, page = env.domains.python_domain, node["refdoc"]
    public = f"deltalens.{name}"
    return python.resolve_xref(env, page, app.builder, "obj", public, node, shown)


def exists(path: str) -> bool:
    """Whether a dotted path of the package leads to something."""
    try:
        return path.startswith("deltalens.") and bool(pkgutil.resolve_name(path))
    except (ImportError, AttributeError, ValueError):
        return False
