"""Pages of the documentation taken apart: their prose, their code, the commands in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.arrows import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(
    r"^(?P<fence>```|~~~)(?P<language>[^\n]*)\n(?P<fenced>.*?)^(?P=fence) *$"
    r"|(?:(?<=\n\n)|(?<=-->\n))(?P<indented>(?: {4}[^\n]*\n|\n(?= {4}))+)",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
CALL = re.compile(r"^ *(?:[A-Z_]+=\S+ )?deltalens [a-z][\w-]*(?: |$)", re.MULTILINE)
SHELLS = ("sh", "indented")
SHELL_WORDS = {"pip", "python", "python3", "source", "make", "torchrun", "git", "cd", "sbatch"}


class Block(NamedTuple):
    """Code of a page; ``not_run`` is why it cannot be run, as the page says just above it."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def prose(page: Path) -> str:
    """The page's text without its fenced code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """All code of a page in its order; indented code is the shell's if it calls deltalens."""
    text = page.read_text(encoding="utf-8")
    for found in CODE.finditer(text):
        language, code = found["language"], found["fenced"]
        if code is None:
            code = re.sub(r"^ {4}", "", found["indented"], flags=re.MULTILINE)
            language = "indented" if CALL.search(code) else ""
        reason = NOT_RUN.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, language.strip(), code, reason and reason[1])


def commands(block: Block) -> list[Sequence[str]]:
    """Arguments of every call of deltalens that a shell block writes in full, loops written out.

    Indented blocks may show what a command says. Raises :class:`ValueError` for a line of another
    block that is none of a shell's that pages may have.
    """
    lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
    typed: list[Sequence[str]] = []
    for line in _unrolled([re.sub(r"^ *([A-Z_]+=\S+ )?", "", line) for line in lines]):
        words = shlex.split(line, comments=True) if "deltalens" in line else line.split()
        if words and words[0] == "deltalens" and "…" not in line.partition(" #")[0]:
            typed.append(words[1:])
        elif block.language == "sh" and words and words[0] not in {"deltalens", *SHELL_WORDS}:
            raise ValueError(f"{block.place}: {line}")
    return typed


def _unrolled(lines: list[str]) -> Iterator[str]:
    """The lines with those of ``for x in a b; do … done`` once for each word."""
    loop: list[str] = []
    name, values = "", [""]
    for line in lines:
        if start := re.match(r"for (\w+) in (.+); do", line):
            name, values = start[1], start[2].split()
        elif line == "done":
            yield from (item.replace(f"${name}", value) for value in values for item in loop)
            loop, name = [], ""
        elif name:
            loop.append(line)
        else:
            yield line
