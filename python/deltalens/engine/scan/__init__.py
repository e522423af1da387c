"""One pass over a decoder: every score, or the exact top-k by candidates and rescoring."""

from deltalens.engine.scan.every import full_scores, segment_scores
from deltalens.engine.scan.intervals import Search
from deltalens.engine.scan.search import top_latents, top_latents_together

__all__ = ["Search", "full_scores", "segment_scores", "top_latents", "top_latents_together"]
