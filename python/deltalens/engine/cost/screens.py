"""Whether a scan that is about to run is screened, and how closely, by this device's rates."""

from __future__ import annotations

import torch

from deltalens.engine.cost.parts import Shape
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.cost.steps import screen_width, screened
from deltalens.engine.decoder import Decoder, TensorDecoder
from deltalens.engine.trust.rates import known_roofs

_USUAL_K = 100


def width_of_screen(
    form: str, impl: str, decoder: Decoder, device: torch.device, *, tokens: int = 1
) -> float | None:
    """The width (:mod:`deltalens.engine.cost.widths`) that is narrow enough, None where a scan
    without a screen takes less time. As the planner has it for the 100 best; ``tokens`` of the
    token form."""
    resident = isinstance(decoder, TensorDecoder) and decoder.rows(0, 0).device == device
    n_latents, d_model = decoder.n_latents, decoder.d_model
    counted = tokens if form == "token" else None
    rows = tile_rows(d_model, impl, resident=resident, tokens=counted)
    k = min(_USUAL_K, n_latents)
    shape = Shape(tokens, n_latents, d_model, k, decoder.dtype, resident, rows)
    roofs = known_roofs(device)
    if not screened(form, impl, shape, roofs):
        return None
    return screen_width(form, impl, shape, roofs)
