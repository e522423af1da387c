"""What was collected of each latent, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from deltalens.examples.exact_sums import total
from deltalens.examples.options import ExampleOptions
from deltalens.examples.slots import Slots
from deltalens.examples.tiles import Collector, histogram_edges
from deltalens.lm.text.token_text import token_text

Line = dict[str, Any]


def example_lines(
    collector: Collector,
    latents: Sequence[int],
    tokens: int,
    options: ExampleOptions,
    tokenizer: Any,
) -> Iterator[Line]:
    """One line per latent: its number and, under ``examples``, statistics and windows.

    ``frequency`` is the share of all ``tokens`` on which it is active, ``mean`` its mean over all
    of them; ``histogram`` the lower edges and counts of bins that are not empty. ``quantiles`` are
    the sampled windows by their largest activation, least first, cut into equal groups.
    ``tokenizer`` None leaves token ids in place of texts.
    """
    text = token_text(tokenizer)
    for row, latent in enumerate(latents):
        sampled = sorted(_windows(collector.sample, row, options, text), key=_order)
        found = {
            "tokens": tokens,
            "active": int(collector.active[row]),
            "frequency": int(collector.active[row]) / tokens,
            "mean": _total(collector, row) / tokens,
            "max": _short(collector.largest[row]),
            "windows": int(collector.windows[row]),
            "histogram": _histogram(collector.histogram[row]),
            "top": list(_windows(collector.top, row, options, text)),
            "quantiles": [_group(part) for part in _equal_parts(sampled, options.bins)],
        }
        yield {"latent": latent, "examples": found}


def _total(collector: Collector, row: int) -> float:
    largest = float(collector.largest[row])
    return total(collector.sums[row]) if isfinite(largest) else largest


def _windows(
    slots: Slots, row: int, options: ExampleOptions, text: Callable[[int], str]
) -> Iterator[Line]:
    windows = slots.windows
    for slot in np.flatnonzero(slots.keys[row] >= 0):
        ids = windows.ids[row, slot]
        inside = ids >= 0
        kept = ids[inside].tolist()
        yield {
            "text": int(windows.text[row, slot]),
            "position": int(windows.position[row, slot]),
            "activation": _short(windows.acts[row, slot, options.before]),
            "peak": int(inside[: options.before].sum()),
            "ids": kept,
            "tokens": [text(token) for token in kept],
            "activations": [_short(value) for value in windows.acts[row, slot, inside]],
        }


def _order(window: Line) -> tuple[float, int, int]:
    return window["activation"], -window["text"], -window["position"]


def _equal_parts(windows: list[Line], parts: int) -> list[list[Line]]:
    edges = [len(windows) * part // parts for part in range(parts + 1)]
    return [windows[a:b] for a, b in pairwise(edges) if a < b]


def _group(windows: list[Line]) -> Line:
    values = [window["activation"] for window in windows]
    return {"least": values[0], "largest": values[-1], "windows": windows}


def _histogram(counts: np.ndarray) -> list[list[float]]:
    edges = histogram_edges()
    return [[float(edges[at]), int(counts[at])] for at in np.flatnonzero(counts)]


def _short(value: np.float32) -> float:
    """The float whose shortest text reads back as the same float32."""
    return float(str(value))
