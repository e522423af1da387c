"""Examples as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from deltalens.examples.text import (
    Line,
    lens_tokens,
    sections,
    summary,
    window_tokens,
)
from deltalens.visible.markup import safe

_STYLE = """
:root { color-scheme: light dark; --hot: 255 140 0; --dim: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --hot: 190 80 0; --dim: #999; --line: #444; } }
body { background: Canvas; color: CanvasText; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: 0; }
p.window { margin: .3rem 0; font-family: ui-monospace, monospace; font-size: 13px; }
p.window > span { white-space: pre-wrap; border-radius: 2px; overflow-wrap: anywhere; }
p.window > .peak { outline: 1px solid rgb(var(--hot)); }
.dim { color: var(--dim); }
svg { fill: rgb(var(--hot)); }
"""
_HEAD = (
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
)


def html_page(lines: Iterable[Line], title: str) -> Iterator[str]:
    """One self-contained page, a piece at a time; it loads nothing and runs no script.

    ``lines`` are those of :func:`~deltalens.examples.store.read_examples`. A token's shade is
    its activation over the latent's largest; the activation itself shows on hovering.
    """
    yield f"{_HEAD}<title>{safe(title)}</title>\n<style>{_STYLE}</style>\n"
    yield f"<h1>{safe(title)}</h1>\n"
    for line in lines:
        yield from _html_latent(line)
    yield "</html>\n"


def _html_latent(line: Line) -> Iterator[str]:
    found = line["examples"]
    yield f"<section>\n<h2>Latent {line['latent']}</h2>\n<p>{safe(summary(found))}</p>\n"
    for name, tokens in lens_tokens(line):
        yield f'<p class="dim">{name}: {safe(tokens)}</p>\n'
    yield _svg_histogram(found["histogram"])
    for title, windows in sections(found):
        yield f"<h3>{safe(title)}</h3>\n"
        for window in windows:
            yield _html_window(window, found["max"])
    yield "</section>\n"


def _html_window(window: Line, largest: float) -> str:
    spans = "".join(
        _html_token(token, value, value / largest, at == window["peak"])
        for at, (token, value) in enumerate(window_tokens(window))
    )
    where = f"text {window['text']}, token {window['position']}"
    return f'<p class="window"><span class="dim">{where}  </span>{spans}</p>\n'


def _html_token(token: str, value: float, share: float, peak: bool) -> str:
    if value <= 0:
        return f"<span>{safe(token)}</span>"
    mark = ' class="peak"' if peak else ""
    shade = f"background:rgb(var(--hot)/{0.12 + 0.78 * share:.2f})"
    return f'<span{mark} style="{shade}" title="{value:.4g}">{safe(token)}</span>'


def _svg_histogram(counts: list[list[float]]) -> str:
    """Bars as high as the bins' counts, at places by their edges, which are half octaves apart."""
    if not counts:
        return ""
    highest = max(count for _, count in counts)
    places = [_half_octaves(edge) for edge, _ in counts]
    bars = "".join(
        f'<rect x="{10 * (place - places[0])}" y="{40 - 40 * count / highest:.1f}" width="9" '
        f'height="{40 * count / highest:.1f}"><title>from {edge:.3g}: {count}</title></rect>'
        for place, (edge, count) in zip(places, counts, strict=True)
    )
    width = 10 * (places[-1] - places[0] + 1)
    label = "activations above 0, on a logarithmic scale"
    return (
        f'<svg width="{width}" height="40" role="img" aria-label="{label}">'
        f"<title>{label}</title>{bars}</svg>\n"
    )


def _half_octaves(edge: float) -> int:
    """The place of 2^e or 1.5 · 2^e among all such numbers."""
    mantissa, exponent = math.frexp(edge)
    return 2 * exponent + (mantissa > 0.5)
