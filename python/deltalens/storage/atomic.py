"""Files that exist whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from torch import Tensor

from deltalens.errors import InputError


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A temporary path in ``path``'s directory that becomes ``path`` when the block succeeds.

    The directory is made if need be; :class:`InputError` when nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error.strerror) from error
    if not os.access(path.parent, os.W_OK):
        raise _unwritable(path.parent, "no permission")
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")  # others may write it, too
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(directory: Path, reason: str | None) -> InputError:
    return InputError(f"cannot write into {directory}: {reason}; choose another place")


def write_text(path: Path, text: str) -> None:
    with complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with complete_file(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))
