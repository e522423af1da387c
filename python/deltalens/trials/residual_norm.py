"""How large the residual stream is: the unit of steering strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from deltalens.lm import Site, activations, find_bos
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt


def median_norm(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, site: int | str | Site
) -> float:
    """Median over the prompts' tokens, a leading BOS excluded, of ‖a‖ at ``site``, unsteered."""
    bos = find_bos(model, tokenizer)
    ids = [
        encode_prompt(tokenizer, prompt, bos=bos, name=f"prompt {number}")
        for number, prompt in enumerate(prompts)
    ]
    norms = [
        rows[int(ids[number][:1] == [bos]) :].norm(dim=1)
        for number, rows in activations(model, ids, site=site)
    ]
    return float(torch.cat(norms).median())
