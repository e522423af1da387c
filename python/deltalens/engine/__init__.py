"""Tensors in, scores and top-k latents out; imports torch and nothing above it."""

from deltalens.engine.api import attribution, attribution_topk
from deltalens.engine.decoder import Decoder, PagedDecoder, as_decoder
from deltalens.engine.moment import CrossMoment, scan_moments
from deltalens.engine.planner import Plan, plan
from deltalens.engine.ranking import TopLatents

__all__ = [
    "CrossMoment",
    "Decoder",
    "PagedDecoder",
    "Plan",
    "TopLatents",
    "as_decoder",
    "attribution",
    "attribution_topk",
    "plan",
    "scan_moments",
]
