"""Colours as people with one kind of cone missing see them, and how far apart colours are.

Machado, Oliveira and Fernandes (2009), severity 1, on linear sRGB; distances are CIE's ΔE of 1976
in L*a*b*, in which 2.3 is just noticeable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]

SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _XYZ.sum(1)


def linear(hexadecimal: str) -> Colour:
    """``#0072b2`` as linear sRGB [3]."""
    digits = hexadecimal.lstrip("#")
    values = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def distance(first: str, second: str, seen: Colour) -> float:
    """ΔE between two colours as seen through a matrix of ``SEEN``."""
    one, other = (_lab(np.clip(seen @ linear(colour), 0, 1)) for colour in (first, second))
    return float(np.linalg.norm(one - other))


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two colours, 1 to 21."""
    low, high = sorted(float(_XYZ[1] @ linear(colour)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def _lab(rgb: Colour) -> Colour:
    t = _XYZ @ rgb / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
