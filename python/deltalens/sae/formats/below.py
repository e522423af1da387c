"""All SAEs below a directory, such as one for each layer of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.formats import (
    FORMATS,
    Format,
    bare,
    circuit_tracer,
    gemma_scope_2,
    qwen_scope,
    sparsify,
)
from deltalens.sae.formats.layout import by_number
from deltalens.sae.hub import find
from deltalens.sae.load import load_sae

_DEPTH = 6  # of folders: release/layer_12/width_16k/average_l0_82
_PARTS: dict[str, Callable[[Path], list[str]]] = {
    module.NAME: module.parts for module in (circuit_tracer, gemma_scope_2, qwen_scope, sparsify)
}


def saes_below(path: str | Path, *, format: str | None = None) -> list[SAE]:
    """Every SAE in the directory ``path`` and the folders below it, by name.

    Nothing but headers is read. What the published layouts have is found: a folder for each SAE, at
    any depth (SAELens, dictionary_learning, Gemma Scope, Llama Scope), a file for each layer (Qwen
    Scope, transcoders of circuit-tracer, OpenAI), and folders by hookpoint (sparsify). A bare
    matrix, which nothing tells from other files, is not. An SAE itself is found alone, and a file
    gives none.

    ``format`` admits SAEs of one format only.
    """
    root = find(path)
    return list(_below(root, format, _DEPTH)) if root.is_dir() else []


def _below(path: Path, format: str | None, depth: int) -> Iterator[SAE]:
    found = _format_of(path, format)
    if found is not None:
        yield from _all_parts(path, found)
        return
    for entry in sorted(path.iterdir(), key=lambda entry: by_number(entry.name)):
        if entry.is_dir() and depth and not entry.name.startswith("."):
            yield from _below(entry, format, depth - 1)
        elif entry.suffix in (".pt", ".pth") and (of_file := _format_of(entry, format)) is not None:
            yield load_sae(entry, format=of_file.NAME)


def _all_parts(path: Path, found: Format) -> Iterator[SAE]:
    parts = _PARTS[found.NAME](path) if found.NAME in _PARTS else []
    if len(parts) < 2:
        yield load_sae(path, format=found.NAME)
        return
    for part in sorted(parts, key=by_number):
        yield load_sae(path, format=found.NAME, part=part)


def _format_of(path: Path, name: str | None) -> Format | None:
    for candidate in FORMATS:
        if candidate is not bare and name in (None, candidate.NAME) and _is(candidate, path):
            return candidate
    return None


def _is(candidate: Format, path: Path) -> bool:
    try:
        return candidate.detect(path)
    except InputError:  # a file that none of them can open
        return False
