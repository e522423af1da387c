"""A row read by itself: logits that no other row, cache or budget has a part in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from deltalens.lm.hooks import input_device
from deltalens.lm.points.edits import editing
from deltalens.lm.sampling.job import Job


def logits_alone(job: Job, row: int, new_tokens: Sequence[int]) -> Tensor:
    """Logits [1, vocabulary] of the token after a row's prompt and ``new_tokens``.

    To be called with only the last position going to the head and without gradients.
    """
    prompt, steered = job.prompts[row], job.steered
    ids = torch.tensor([[*prompt, *new_tokens]], device=input_device(job.model))
    context: AbstractContextManager[None] = nullcontext()
    if steered is not None:
        start = 0 if steered.prompt else len(prompt)
        context = editing(steered.site, steered.edits, steered.of([row]), start)
    with context:
        return job.model(input_ids=ids, use_cache=False).logits[:, -1]
