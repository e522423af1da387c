"""Whether anything stands out from chance, and how firm the ranking is."""

from deltalens.study.significance.assess import FLIPS, Significance, assess, untested

__all__ = ["FLIPS", "Significance", "assess", "untested"]
