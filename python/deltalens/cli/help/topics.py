"""Which topics there are: subjects, whose pages are Markdown in the package, and commands."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files

from deltalens.errors import InputError, quoted

SUBJECTS = {
    "pairs-file": "what a file of pairs holds",
    "sites": "names of places in a model",
    "sae-formats": "checkpoints that are read, and which of several is meant",
    "baselines": "what presence is held against",
    "judges": "what grades completions",
    "scores": "the columns of a ranking",
    "run-files": "what lies in a run directory",
    "config": "configuration files, and runs made again",
    "environment": "exit codes and environment variables",
}
"""With a summary each; ``pages/NAME.md`` is the text."""


def page(subject: str) -> str:
    """The Markdown of a subject."""
    place = files("deltalens.cli.help") / "pages" / f"{subject}.md"
    return place.read_text(encoding="utf-8")


def check_topic(topic: str, commands: Iterable[str]) -> None:
    """Raise :class:`InputError`, with names like it, for what is neither subject nor command."""
    known = [*SUBJECTS, *commands]
    if topic in known:
        return
    near = get_close_matches(topic, known, n=3, cutoff=0.5)
    near += [name for name in known if topic and topic in name and name not in near]
    meant = f" (is {' or '.join(near)} meant?)" if near else ""
    raise InputError(f"there is no topic {quoted(topic)}{meant}; `deltalens help` lists all")
