"""Links to files that are no pages: to the repository where it is known, else to copies.

A page links CONTRIBUTING.md or a source file by its relative path, as GitHub follows it.
"""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

FIRST_PAGE = "README.md"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("repository", "", "env", [str])
    app.add_transform(OtherFiles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class OtherFiles(SphinxTransform):
    """Before MyST makes downloads of files, and warnings of directories."""

    default_priority = 1

    def apply(self) -> None:
        for node in list(self.document.findall(is_link)):
            place = self._place(node)
            outside = self._outside(place)
            if outside is not None:
                self._replace(node, place, outside)

    def _folder(self) -> Path:
        return Path(self.env.doc2path(self.env.docname)).parent

    def _place(self, node: nodes.Element) -> Path:
        """What is linked; Markdown is told by the name that it would have as a page."""
        if node["refdomain"] == "doc":
            return (Path(self.env.srcdir) / f"{node['reftarget']}.md").resolve()
        return (self._folder() / node["reftarget"].partition("#")[0]).resolve()

    def _outside(self, place: Path) -> Path | None:
        docs = Path(self.env.srcdir)
        if place.is_relative_to(docs) or not place.is_relative_to(docs.parent):
            return None
        return place.relative_to(docs.parent)

    def _replace(self, node: nodes.Element, place: Path, path: Path) -> None:
        if path.as_posix() == FIRST_PAGE:
            node.attributes.update(reftarget="index", reftargetid=None)
        elif self.config.repository:
            kind = "tree" if place.is_dir() else "blob"
            uri = f"{self.config.repository}/{kind}/main/{path.as_posix()}"
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri))
        elif place.is_dir():
            node.replace_self(nodes.inline("", "", *node.children))
        else:
            copied = os.path.relpath(place, self._folder())
            refdoc = self.env.docname
            node.replace_self(
                addnodes.download_reference("", "", *node.children, reftarget=copied, refdoc=refdoc)
            )


def is_link(node: nodes.Node) -> bool:
    return isinstance(node, addnodes.download_reference) or (
        isinstance(node, addnodes.pending_xref) and node.get("reftype") == "myst"
    )
