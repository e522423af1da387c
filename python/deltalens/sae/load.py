"""From a path to an SAE."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.formats import FORMATS, Format, bare
from deltalens.sae.formats.layout import describe, place
from deltalens.sae.formats.neuronpedia import known_name
from deltalens.sae.hub import find


def load_sae(
    path: str | Path,
    *,
    format: str | None = None,
    tensor: str | None = None,
    part: str | int | None = None,
) -> SAE:
    """The SAE stored at ``path``, a directory or its weight file, here or on the Hugging Face hub.

    Args:
        path: ``org/repo/folder`` or ``hf://org/repo/folder@revision`` is downloaded through
            huggingface_hub, that folder only, when nothing local has the name.
        format: the name of one of :data:`~deltalens.sae.formats.FORMATS`, or ``"bare"`` (one
            matrix [n_latents, d_model] in a safetensors, npz or npy file); None looks at the files.
        tensor: the decoder's name in a bare file; not needed when there is no doubt.
        part: which SAE, where there are several: a layer (12), a hookpoint (``"layers.10"``), or a
            cross-layer transcoder's source and target layer (``"3:7"``).

    Nothing but headers is read until rows are asked for, and no object is unpickled. A large
    decoder stored by column gets a copy by row when its rows are first read (see
    :class:`~deltalens.sae.transposed.TransposedTensor`). Raises :class:`InputError` saying what was
    found when that is not a checkpoint that can be used.
    """
    chosen = None if part is None else str(part)
    path = find(path, chosen)
    if tensor is None:
        return _load(_format_for(path, format), path, chosen)
    if format not in (None, bare.NAME):
        raise InputError(
            f"tensor={quoted(tensor)} names a tensor of a bare file, not of format={quoted(format)}"
        )
    return bare.load_tensor(path, tensor)


def _load(format: Format, path: Path, part: str | None) -> SAE:
    if part is not None and format.PART is None:
        raise InputError(
            f"{path}: part={quoted(part)}, but a {format.NAME} checkpoint holds one SAE"
        )
    loaded = format.load(path, part)
    return dataclasses.replace(
        loaded, part=part, neuronpedia=known_name(loaded.metadata, place(path))
    )


def _format_for(path: Path, name: str | None) -> Format:
    known = ", ".join(candidate.NAME for candidate in FORMATS)
    for candidate in FORMATS:
        if name == candidate.NAME or (name is None and candidate.detect(path)):
            return candidate
    if name is not None:
        raise InputError(f"unknown SAE format {quoted(name)}; known formats: {known}")
    raise InputError(f"{path}: no known SAE format: found {describe(path)}; tried {known}")
