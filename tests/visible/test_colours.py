"""Results in the pages of notebooks, dark and light: the page's own ink, readable, and inert."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

import deltalens
from deltalens.visible import visible
from helpers.browser import opened
from helpers.finished_run import HOSTILE, add_everything, hostile_texts, make_run


class Host(NamedTuple):
    """How a notebook's page embeds outputs: its style, the class of what holds them."""

    style: str
    holder: str
    scheme: str


# The rules for rendered HTML of JupyterLab 4 with its two themes' values, of VS Code's outputs, of
# classic notebooks, and a page that leaves everything to the browser.
LAB = """
:root {{ --ink: {ink}; --paper: {paper}; --row: {row} }}
body {{ background: var(--paper); color: var(--ink) }}
.jp-RenderedHTMLCommon {{ color: var(--ink); font-size: 14px; line-height: 1.6 }}
.jp-RenderedHTMLCommon table {{ border-collapse: collapse; color: var(--ink); table-layout: fixed }}
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th {{ text-align: right; padding: .5em }}
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) {{ background: var(--paper) }}
.jp-RenderedHTMLCommon tbody tr:nth-child(even) {{ background: var(--row) }}
"""
LAB_LIGHT = {"ink": "rgba(0,0,0,.87)", "paper": "white", "row": "#f5f5f5"}
LAB_DARK = {"ink": "rgb(255,255,255)", "paper": "#111111", "row": "#212121"}
HOSTS = {
    "lab-light": Host(LAB.format(**LAB_LIGHT), "jp-RenderedHTMLCommon", "light"),
    "lab-dark": Host(LAB.format(**LAB_DARK), "jp-RenderedHTMLCommon", "light"),
    "lab-light-in-dark": Host(LAB.format(**LAB_LIGHT), "jp-RenderedHTMLCommon", "dark"),
    "code-dark": Host("body { background: #1e1e1e; color: #cccccc }", "output", "dark"),
    "code-light": Host("body { background: #ffffff; color: #3b3b3b }", "output", "light"),
    "classic": Host("body { background: white; color: black }", "rendered_html", "light"),
    "plain-dark": Host(":root { color-scheme: light dark }", "output", "dark"),
}

# Of every element with text of its own: ink, what is behind it (blended), and the page's ink.
MEASURE = """() => {
  const numbers = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const alpha = (color) => color.length > 3 ? color[3] : 1;
  const over = (top, base) =>
    [0, 1, 2].map((i) => top[i] * alpha(top) + base[i] * (1 - alpha(top)));
  const canvas = document.createElement("div");
  canvas.style.backgroundColor = "Canvas";
  document.body.append(canvas);
  const base = numbers(getComputedStyle(canvas).backgroundColor);
  canvas.remove();
  const behind = (element) => element === null ? base :
    over(numbers(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  const found = [];
  for (const element of document.querySelectorAll("#holder *")) {
    const own = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (!own.length) continue;
    const style = getComputedStyle(element);
    const drawn = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const paper = behind(element);
    found.push({
      text: own.map((n) => n.data).join(""), svg: element.namespaceURI.endsWith("svg"),
      ink: over(numbers(drawn), paper), paper, raw: drawn,
    });
  }
  return {found, ink: getComputedStyle(document.getElementById("holder")).color};
}"""


def luminance(colour: list[float]) -> float:
    """Relative, as WCAG 2.2 defines it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (each / 255 for each in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: list[float], paper: list[float]) -> float:
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ranking, a latent, examples, a sweep and figures, all of hostile texts."""
    run = tmp_path_factory.mktemp("colours") / "run"
    result = make_run(run, texts=hostile_texts())
    sweep = add_everything(run, result, hostile_texts())
    shown = [result, result.show(int(result.latents[0])), deltalens.read_examples(run), sweep]
    shown += [
        result.plot(),
        deltalens.compare(result, result).plot(),
        sweep.plot(),
        sweep.plot_strengths(),
    ]
    return "".join(one._repr_html_() for one in shown)


@pytest.mark.parametrize("name", HOSTS)
def test_text_has_the_pages_ink_and_can_be_read(
    name: str, browser: Any, fragments: str, tmp_path: Path
) -> None:
    host, path = HOSTS[name], tmp_path / "page.html"
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><style>{host.style}</style>'
        f'<body><div id="holder" class="{host.holder}">{fragments}</div>',
        encoding="utf-8",
    )
    with opened(browser, path, color_scheme=host.scheme) as page:
        measured = page.evaluate(MEASURE)
        assert page.evaluate("window.pwned") is None
        assert page.locator("script, img, iframe, object, embed, link, a, form").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") < 4000
    texts = measured["found"]
    assert {one["raw"] for one in texts} == {measured["ink"]}
    worst = min(texts, key=lambda one: contrast(one["ink"], one["paper"]))
    assert contrast(worst["ink"], worst["paper"]) >= 4.5, worst
    assert sum(one["svg"] for one in texts) > 30
    said = {one["text"] for one in texts}
    for text in HOSTILE:
        assert any(visible(text) in one for one in said), text
