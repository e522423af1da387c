"""What both figures of a sweep have: colours of sets, titles of panels."""

from __future__ import annotations

from collections.abc import Mapping

from deltalens.trials.verdicts.sets import (
    ACTIVATION,
    ATTRIBUTION,
    COSINE,
    GRADIENT,
    PRESENT,
    PUSH,
    Direction,
)

# Okabe and Ito's palette, told apart by colour-blind readers.
COLOURS = {
    ATTRIBUTION: "#0072b2",
    ACTIVATION: "#d55e00",
    PUSH: "#009e73",
    PRESENT: "#56b4e9",
    GRADIENT: "#cc79a7",
    COSINE: "#e69f00",
}
PANELS: Mapping[Direction, str] = {
    "away": "Studied model, steered away",
    "toward": "Reference model, steered toward",
}
