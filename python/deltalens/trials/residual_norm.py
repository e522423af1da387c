"""How large the residual stream is: the unit of steering strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from deltalens.errors import InputError
from deltalens.lm import Sifted, Site, activations, find_bos
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt


def median_norm(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    site: int | str | Site,
    chat_template_kwargs: ChatOptions | None = None,
) -> float:
    """Median over the prompts' tokens, attention sinks and a leading BOS excluded, of ‖a‖ at
    ``site``, unsteered.

    Raises :class:`InputError` where that is 0 or there is no token.
    """
    bos = find_bos(model, tokenizer)
    ids = [
        encode_prompt(
            tokenizer,
            prompt,
            bos=bos,
            name=f"prompt {number}",
            chat_template_kwargs=chat_template_kwargs,
        )
        for number, prompt in enumerate(prompts)
    ]
    sifted = Sifted(activations(model, ids, site=site), SINKS)
    norms = []
    for number, rows, kept in sifted:
        kept[: int(ids[number][:1] == [bos])] = False
        norms.append(rows[kept].norm(dim=1))
    found = torch.cat(norms)
    if not len(found):
        raise InputError("the prompts hold no token after their first; give longer prompts")
    median = float(found.median())
    if not median > 0:
        raise InputError(
            "the prompts' activations are zero at the site: no strength can be measured by them"
        )
    return median
