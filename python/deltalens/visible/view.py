"""What a result shows of itself: a title, sentences and the first rows of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deltalens.visible import visible
from deltalens.visible.markup import Markup, h, join, link, safe

ROWS = 10
LONGEST_CELL, LONGEST_LINE = 160, 1200  # characters
_STRONGEST = 0.5  # opacity behind letters, which stay readable in every notebook's colours


@dataclass(frozen=True)
class Table:
    """The first of ``total`` rows. left: columns of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int
    left: Sequence[str] = ()

    @property
    def rest(self) -> str:
        """Which rows these are, where there are more."""
        shown = len(self.rows)
        return f"the first {shown} of {self.total:,} rows" if shown < self.total else ""


@dataclass(frozen=True)
class Marked:
    """Text in pieces with a value each, whose sign and size are the piece's colour."""

    caption: str
    pieces: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class View:
    """Shows itself as HTML in a notebook and as text elsewhere; whatever the texts are, they act on
    neither."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    texts: Sequence[Marked] = ()
    links: Sequence[str] = ()
    frame: str | None = None

    def html(self) -> str:
        """A fragment that runs nothing and takes the page's own colours; it loads nothing but what
        ``frame`` is the address of, where there is one."""
        parts = [h("p", h("b", _safe(self.title)))]
        parts += [h("p", safe(_cut(line, LONGEST_LINE))) for line in self.lines]
        for table in self.tables:
            parts.append(_table(table))
            parts += [h("p", safe(table.rest))] if table.rest else []
        parts += [part for text in self.texts for part in _marked(text)]
        parts += [h("p", link(address)) for address in self.links]
        if self.frame is not None:
            parts.append(_frame(self.frame))
        return str(h("div", *parts))

    _repr_html_ = html

    def __repr__(self) -> str:
        return "\n".join(self._text())

    def _text(self) -> Iterator[str]:
        yield _short(self.title)
        yield from (visible(_cut(line, LONGEST_LINE)) for line in self.lines)
        for table in self.tables:
            cells = [[_short(cell) for cell in row] for row in (table.columns, *table.rows)]
            yield from ("  ".join(row) for row in cells)
            if table.rest:
                yield table.rest
        for text in self.texts:
            yield _short(text.caption)
            yield "".join(_bracketed(text))
        yield from map(_short, self.links)


def _table(table: Table) -> Markup:
    left = [name in table.left for name in table.columns]
    rows = [h("tr", *map(_cell, row, left)) for row in table.rows]
    names = (h("th", _safe(name), scope="col") for name in table.columns)
    return h("table", h("thead", h("tr", *names)), h("tbody", join(*rows)))


def _frame(address: str) -> Markup:
    return h(
        "iframe",
        src=address,
        title=address,
        style="width:100%;height:40rem;border:0",
        loading="lazy",
        referrerpolicy="no-referrer",
        sandbox="allow-scripts allow-same-origin allow-popups",
    )


def _cell(text: str, left: bool) -> Markup:
    return h("td", _safe(text), style=f"text-align:{'left' if left else 'right'}")


def _marked(text: Marked) -> Iterator[Markup]:
    yield h("p", _safe(text.caption))
    largest = _largest(text)
    pieces = (
        h("span", _safe(piece), style=_colour(value / largest), title=f"{value:+.2e}")
        for piece, value in text.pieces
    )
    yield h("p", join(*pieces), style="white-space:pre-wrap")


def _largest(text: Marked) -> float:
    return max((abs(value) for _, value in text.pieces), default=0.0) or 1.0


def _colour(share: float) -> str:
    """Behind letters of the page's own colour, whether that is dark or light."""
    red, green, blue = (0, 114, 178) if share > 0 else (213, 94, 0)
    return f"background-color:rgba({red},{green},{blue},{_STRONGEST * abs(share):.2f})"


def _bracketed(text: Marked) -> Iterator[str]:
    """Pieces, with the value behind those that are at least half as large as the largest."""
    largest = _largest(text)
    for piece, value in text.pieces:
        yield _short(piece)
        if abs(value) >= largest / 2:
            yield f"[{value:+.1e}]"


def _safe(text: str) -> Markup:
    return safe(_cut(text))


def _short(text: str) -> str:
    return visible(_cut(text))


def _cut(text: str, most: int = LONGEST_CELL) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
