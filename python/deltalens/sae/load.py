"""From a path to an SAE."""

from __future__ import annotations

from pathlib import Path

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.formats import FORMATS, Format, bare
from deltalens.sae.formats.layout import describe


def load_sae(path: str | Path, *, format: str | None = None, tensor: str | None = None) -> SAE:
    """The SAE stored at ``path``, a directory or its weight file.

    Args:
        format: ``"saelens"``, ``"gemma_scope"``, ``"dictionary_learning"`` or ``"bare"`` (one
            matrix [n_latents, d_model] in a safetensors, npz or npy file); None looks at the files.
        tensor: the decoder's name in a bare file; not needed when there is no doubt.

    Nothing but headers is read until rows are asked for, and no object is unpickled. Raises
    :class:`InputError` saying what was found when that is not a checkpoint that can be used.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if tensor is None:
        return _format_for(path, format).load(path)
    if format not in (None, bare.NAME):
        raise InputError(
            f"tensor={tensor!r} names a tensor of a bare file, not of format={format!r}"
        )
    return bare.load(path, tensor)


def _format_for(path: Path, name: str | None) -> Format:
    for candidate in FORMATS:
        if name == candidate.NAME or (name is None and candidate.detect(path)):
            return candidate
    if name is not None:
        known = ", ".join(candidate.NAME for candidate in FORMATS)
        raise InputError(f"unknown SAE format {name!r}; known formats: {known}")
    tried = "; ".join(f"{candidate.NAME} ({candidate.LAYOUT})" for candidate in FORMATS)
    raise InputError(f"{path}: no known SAE format: found {describe(path)}; known formats: {tried}")
