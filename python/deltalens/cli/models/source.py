"""Where a model comes from: what the arguments, or a run's record, say."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

GGUF = ".gguf"


@dataclass(frozen=True)
class ModelSource:
    """A directory or hub id of a model or of an adapter, and how it is loaded.

    ``base`` stands for the base that an adapter names, ``tokenizer`` for the model's own.
    """

    model: str
    revision: str | None = None
    base: str | None = None
    tokenizer: str | None = None
    gguf_file: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> ModelSource:
        """What the arguments say; a path to a GGUF file is its directory and its name."""
        given = {field.name: getattr(args, field.name, None) for field in fields(cls)}
        source = cls(**{name: value for name, value in given.items() if value is not None})
        path = Path(source.model)
        if path.suffix == GGUF and path.is_file():
            return replace(source, model=str(path.parent), gguf_file=path.name)
        return source

    def other(self, model: str) -> ModelSource:
        """Another model, of the same tokenizer and loaded alike."""
        named = {**asdict(self), "model": model, "revision": None, "gguf_file": None}
        return ModelSource.of(argparse.Namespace(**named))

    def recorded(self) -> dict[str, str]:
        """What loads the model again, for a run's record."""
        named = ("model", "revision", "base", "tokenizer", "gguf_file", "dtype")
        return {name: value for name in named if (value := getattr(self, name)) is not None}

    def options(self) -> dict[str, Any]:
        """Keyword arguments that name the files to transformers."""
        named = {"revision": self.revision, "gguf_file": self.gguf_file}
        return {name: value for name, value in named.items() if value is not None}
