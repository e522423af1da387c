"""Two studies side by side: what their rankings share."""

from deltalens.study.comparison.compare import compare
from deltalens.study.comparison.result import Comparison

__all__ = [
    "Comparison",
    "compare",
]
