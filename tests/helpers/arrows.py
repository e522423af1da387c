"""The package's imports as arrows between its files, read from their text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

Sources = dict[str, str]  # text by dotted name of the module
Arrows = dict[str, set[str]]


def sources() -> Sources:
    """Every file of the package, the kernels included."""
    found = {}
    for folder, name in ((ROOT / "python/deltalens", "deltalens"), (ROOT / "triton_kernels", None)):
        for path in folder.rglob("*.py"):
            parts = [name or "deltalens.kernels", *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def arrows(texts: Sources) -> Arrows:
    """What each module imports of the package, within functions and for types too."""
    return {
        module: {name for name in _imported(module, text, texts) if name != module}
        for module, text in texts.items()
    }


def circle(found: Arrows) -> list[str]:
    """Modules that import each other in a ring, or none. A package's own file counts as itself."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for name in sorted(found[module]):
            ring = walk(name, [*path, module])
            if ring:
                return ring
        done.add(module)
        return []

    return next((ring for module in sorted(found) if (ring := walk(module, []))), [])


def _imported(module: str, text: str, texts: Sources) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in texts)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for item in node.names:
                for name in (f"{node.module}.{item.name}", node.module or ""):
                    if name in texts:
                        yield name
                        break
