"""Where in a corpus latents are most active: collected, kept on disk, and shown."""

from deltalens.examples.collect import collect_examples
from deltalens.examples.store import read_examples

__all__ = [
    "collect_examples",
    "read_examples",
]
