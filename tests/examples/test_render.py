from __future__ import annotations

import io
from html.parser import HTMLParser

import pytest
from rich.console import Console

from deltalens.examples.html import html_page
from deltalens.examples.terminal import terminal_text
from deltalens.visible import visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></span>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "[red]bold[/red]",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe",
    "line\nbreak\ttab",
    "\x00\ufeff\u2028",
]


def make_line(tokens: list[str], activations: list[float], latent: int = 7) -> dict:
    peak = activations.index(max(activations))
    window = {
        "text": 3,
        "position": 12,
        "activation": max(activations),
        "peak": peak,
        "ids": list(range(len(tokens))),
        "tokens": tokens,
        "activations": activations,
    }
    low, high = {**window, "activation": 1.0}, window
    return {
        "latent": latent,
        "promotes": [[token, 1, 0.5] for token in tokens[:3]],
        "suppresses": [],
        "examples": {
            "tokens": 1000,
            "active": 5,
            "frequency": 0.005,
            "mean": 0.25,
            "max": max(activations),
            "windows": 2,
            "histogram": [[1.0, 3], [1.5, 1], [4.0, 1]],
            "top": [window],
            "quantiles": [{"least": 1.0, "largest": max(activations), "windows": [low, high]}],
        },
    }


SILENT = {
    "latent": 8,
    "examples": {
        "tokens": 1000,
        "active": 0,
        "frequency": 0.0,
        "mean": 0.0,
        "max": 0.0,
        "windows": 0,
        "histogram": [],
        "top": [],
        "quantiles": [],
    },
}


class Page(HTMLParser):
    """Elements with their attributes, and the text of the spans of windows."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.spans: list[str] = []
        self._in_span = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_span = tag == "span" and dict(attrs).get("class") != "dim"
        if self._in_span:
            self.spans.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_span = False

    def handle_data(self, data: str) -> None:
        if self._in_span:
            self.spans[-1] += data


def test_markup_in_tokens_and_titles_is_text():
    activations = [float(at % 3) for at in range(len(HOSTILE))]
    text = "".join(html_page([make_line(HOSTILE, activations)], title=HOSTILE[0]))
    page = Page(text)
    assert {tag for tag, _ in page.elements} == {
        *("html", "meta", "title", "style", "h1", "section", "h2", "p", "svg", "rect", "h3"),
        "span",
    }
    allowed = {"span": {"class", "style", "title"}, "p": {"class"}}
    for tag, attributes in page.elements:
        if tag in allowed:
            assert attributes.keys() <= allowed[tag]
    assert page.spans == [visible(token) for token in HOSTILE] * 3
    assert page.spans[0] == HOSTILE[0]  # nothing is lost on the way
    assert not {"\x1b", "\x00", "\u202e", "\u2028"} & set(text)


def test_a_page_needs_nothing_else_and_has_both_schemes():
    text = "".join(html_page([make_line(["a", "b"], [0.0, 2.0]), SILENT], title="t"))
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "never active on 1,000 tokens" in text
    shades = [attributes.get("style") for tag, attributes in Page(text).elements if tag == "span"]
    assert [shade for shade in shades if shade] == ["background:rgb(var(--hot)/0.90)"] * 3


def test_histogram_bars_stand_where_their_edges_are():
    page = Page("".join(html_page([make_line(["a"], [4.0])], title="t")))
    bars = [attributes for tag, attributes in page.elements if tag == "rect"]
    # 1, 1.5, (2, 3,) 4
    assert [int(bar["x"]) for bar in bars] == [0, 10, 40]
    assert [float(bar["height"]) for bar in bars] == pytest.approx([40, 13.3, 13.3])


def printed(line: dict, *, colour: bool) -> str:
    system = "truecolor" if colour else None
    console = Console(file=io.StringIO(), width=2000, color_system=system)
    console.print(terminal_text(line, 3, colour=colour))
    return console.file.getvalue()


def test_without_colour_active_tokens_are_in_brackets():
    text = printed(make_line([" the", " cat", " sat"], [0.0, 2.5, 1.0]), colour=False)
    assert "    2.500   the [cat 2.5] [sat]\n" in text
    assert "\x1b" not in text


def test_with_colour_the_background_follows_the_activation():
    text = printed(make_line(["a", "b", "c"], [0.0, 4.0, 1.0]), colour=True)
    assert "\x1b[30;48;2;255;140;0mb\x1b[0m" in text  # the strongest shade
    assert "\x1b[30;48;2;255;220;166mc\x1b[0m" in text  # a quarter of the way
    assert "[b" not in text.replace("\x1b[", "")


@pytest.mark.parametrize("colour", [False, True])
def test_tokens_do_not_act_on_the_terminal(colour):
    activations = [1.0] * len(HOSTILE)
    text = printed(make_line(HOSTILE, activations), colour=colour)
    plain = printed(make_line(["x"] * len(HOSTILE), activations), colour=colour)
    assert text.count("\x1b") == plain.count("\x1b")
    assert text.count("\n") == plain.count("\n")
    assert not {"\x00", "\x07", "\u202e", "\ufeff", "\u2028"} & set(text)
    for shown in ("[red]bold[/red]", r"\x1b[31mred", r"\u202egnp.exe", "line↵break→tab"):
        assert shown in text


def test_a_latent_that_is_never_active():
    assert printed(SILENT, colour=False).strip() == "latent 8  never active on 1,000 tokens"
