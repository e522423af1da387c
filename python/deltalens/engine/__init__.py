"""Tensors in, scores and top-k latents out; imports torch and nothing above it."""

from deltalens.engine.api import (
    AttributionStatistics,
    attribution,
    attribution_statistics,
    attribution_topk,
)
from deltalens.engine.cost.planner import Plan, plan
from deltalens.engine.decoder import Decoder, PagedDecoder, as_decoder
from deltalens.engine.latent.attribution import gated_attribution, gated_attribution_topk
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.moment import CrossMoment, scan_moments
from deltalens.engine.prompt_rows import PromptRows, rows_from
from deltalens.engine.topk.ranking import TopLatents

__all__ = [
    "AttributionStatistics",
    "CrossMoment",
    "Decoder",
    "LatentGate",
    "PagedDecoder",
    "Plan",
    "PromptRows",
    "TopLatents",
    "as_decoder",
    "attribution",
    "attribution_statistics",
    "attribution_topk",
    "gated_attribution",
    "gated_attribution_topk",
    "plan",
    "rows_from",
    "scan_moments",
]
