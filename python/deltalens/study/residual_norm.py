"""How large the residual stream is: the unit of steering strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from deltalens.lm import Site, activations


def median_norm(
    model: Any, prompts: Sequence[list[int]], *, site: int | str | Site, bos: int | None
) -> float:
    """Median over the prompts' tokens, a leading ``bos`` excluded, of ‖a‖ at ``site``."""
    norms = [
        rows[int(prompts[number][:1] == [bos]) :].norm(dim=1)
        for number, rows in activations(model, prompts, site=site)
    ]
    return float(torch.cat(norms).median())
