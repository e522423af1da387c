"""A command as a file: YAML with its options by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.version import __version__

COMMAND, DIRECTORY, INPUTS = "command", "directory", "inputs"
LARGEST = 1 << 20


@dataclass(frozen=True)
class Config:
    """What one command was, or is to be, given.

    options: by name, as YAML has them. directory: where their relative paths start. inputs: hashes
    of what was read, by paths as the options have them.
    """

    command: str | None
    directory: Path
    options: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The file's content."""
        import yaml

        said: dict[str, Any] = {COMMAND: self.command, DIRECTORY: str(self.directory)}
        said |= self.options
        if self.inputs:
            said[INPUTS] = dict(self.inputs)
        body = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)
        return f"# deltalens {__version__}; `deltalens help config` says what this is\n{body}"


def read_config(path: Path) -> Config:
    """The configuration in ``path``; relative paths start in its directory unless it says where.

    Raises :class:`InputError`, naming ``path``, for anything else.
    """
    try:
        return _config(path, _mapping(_content(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check the path") from error
    if len(content) > LARGEST:
        raise InputError("more than 1 MiB, which is no configuration; name another file")
    return content


def _mapping(content: bytes) -> dict[str, Any]:
    from deltalens.storage.yaml_text import compose_yaml, yaml_value

    root = compose_yaml(content)
    value = yaml_value(root)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError("no mapping of options' names to values (NAME: VALUE on each line)")
    keys = [key.value for key, _ in root.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise InputError(f"{quoted(twice)} is there twice; leave one out")
    return value


def _config(path: Path, value: dict[str, Any]) -> Config:
    command, inputs = value.pop(COMMAND, None), value.pop(INPUTS, None) or {}
    directory = value.pop(DIRECTORY, None) or "."
    texts = [command or "", directory, *(inputs if isinstance(inputs, dict) else [None])]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise InputError(f"{COMMAND} and {DIRECTORY} are texts, {INPUTS} a mapping; mend them")
    start = path.resolve().parent / directory
    if not start.is_dir():
        raise InputError(
            f"its paths start from {quoted(directory)}, which is no directory here; write another "
            f"one as its {DIRECTORY}"
        )
    hashes = {text: str(found) for text, found in inputs.items()}
    return Config(command, Path(os.path.normpath(start)), value, hashes)


def check_known(names: Iterable[str], known: Iterable[str], command: str) -> None:
    """Raise :class:`InputError`, with what is spelled like it, for a name that is no option."""
    known = list(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name.replace("_", "-").lstrip("-"), known, n=3)
            meant = f" (is {' or '.join(near)} meant?)" if near else ""
            raise InputError(
                f"{quoted(name)} is no option of {command}{meant}; "
                f"`deltalens {command} --help` has all"
            )
