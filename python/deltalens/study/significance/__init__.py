"""Whether anything stands out from chance, and how firm the ranking is."""

from deltalens.study.significance.assess import (
    FLIPS,
    Significance,
    Tested,
    assess,
    assess_together,
    untested,
)

__all__ = ["FLIPS", "Significance", "Tested", "assess", "assess_together", "untested"]
