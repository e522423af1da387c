"""Names of latents, given by a language model that is shown examples and steered completions."""

from deltalens.trials.interpretation.interpret import (
    Interpretation,
    interpret,
    read_interpretations,
)

__all__ = [
    "Interpretation",
    "interpret",
    "read_interpretations",
]
