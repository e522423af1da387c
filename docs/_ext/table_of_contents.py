"""The pages beside the site's first one, as README.md lists them: there is no second list."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("pages", Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Pages(SphinxDirective):
    """One hidden toctree for each heading of the table of contents."""

    def run(self) -> list[nodes.Node]:
        listed = Path(self.env.srcdir) / "README.md"
        self.env.note_dependency(str(listed))
        lines = toctree([], ["README"])
        for title, pages in sections(listed.read_text(encoding="utf-8")):
            lines += toctree([f":caption: {title}"], pages)
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source=str(listed)), self.content_offset, holder)
        return holder.children


def toctree(options: list[str], pages: list[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", *options, "", *pages, "```", ""]


def sections(text: str) -> list[tuple[str, list[str]]]:
    """Headings and the pages linked below each, the site's first page aside."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return [
        (title, [page for page in re.findall(r"\]\(([\w-]+)\.md\)", part) if page != "index"])
        for title, part in found
    ]
