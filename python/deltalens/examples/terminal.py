"""Examples for a terminal, with colour and without."""

from __future__ import annotations

from rich.text import Text

from deltalens.examples.text import Line, lens_tokens, sections, summary, window_tokens

_SHADES = 8
_FAINT, _STRONG = (255, 247, 222), (255, 140, 0)


def terminal_text(line: Line, count: int, *, colour: bool) -> Text:
    """A latent's heading, its best ``count`` windows and its samples.

    Without colour the tokens above 0 stand in brackets, the peak with its activation.
    """
    found = line["examples"]
    text = Text(f"latent {line['latent']}", style="bold")
    text.append(f"  {summary(found)}\n", style="not bold")
    for name, tokens in lens_tokens(line):
        text.append(f"{name}: {tokens}\n", style="not bold dim")
    for title, windows in sections(found):
        text.append(f"{title}\n", style="not bold italic")
        for window in windows[:count]:
            text.append_text(_terminal_window(window, found["max"], colour))
    return text


def _terminal_window(window: Line, largest: float, colour: bool) -> Text:
    text = Text(f"{window['activation']:9.3f}  ", style="not bold")
    for at, (token, value) in enumerate(window_tokens(window)):
        if colour:
            text.append(token, style=_shade(value / largest) if value > 0 else None)
        elif value > 0:
            peak = f" {value:.3g}" if at == window["peak"] else ""
            text.append(_bracketed(token, peak))
        else:
            text.append(token)
    return text.append("\n")


def _bracketed(token: str, peak: str) -> str:
    word = token.lstrip(" ")
    return f"{token[: len(token) - len(word)]}[{word}{peak}]"


def _shade(share: float) -> str:
    """Black on a background between faint and strong: readable on light and dark terminals."""
    step = round(share * _SHADES) / _SHADES
    red, green, blue = (round(a + (b - a) * step) for a, b in zip(_FAINT, _STRONG, strict=True))
    return f"black on rgb({red},{green},{blue})"
