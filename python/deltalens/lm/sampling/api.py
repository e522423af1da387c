"""Sampling completions, each row from its own stream of random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget
from deltalens.lm.model.independence import check_readable
from deltalens.lm.points.edits import Additions, Edits
from deltalens.lm.progress import Progress
from deltalens.lm.sampling.generate import generate, uses_slots
from deltalens.lm.sampling.job import Job, Steered, numbered
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.steering import SteerTokens, added_rows, check_steer_tokens
from deltalens.lm.tokenise import check_context, check_ids

GENERATION_TOKENS = 65_536  # held in the cache at once


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    site: int | str | Site | None = None,
    directions: Tensor | None = None,
    strengths: Tensor | float | None = None,
    edits: Edits | None = None,
    conditions: Sequence[int] | None = None,
    steer_tokens: SteerTokens = "all",
    batch_tokens: int = GENERATION_TOKENS,
    progress: bool = False,
) -> list[list[int]]:
    """One completion of each prompt: its new token ids, up to and without an end-of-text token.

    Everything is as in :func:`sample_stream`; the completions come in the order of ``prompts``.
    """
    completions: list[list[int]] = [[] for _ in prompts]
    for row, tokens in sample_stream(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        streams=streams,
        site=site,
        directions=directions,
        strengths=strengths,
        edits=edits,
        conditions=conditions,
        steer_tokens=steer_tokens,
        batch_tokens=batch_tokens,
        progress=progress,
    ):
        completions[row] = tokens
    return completions


def sample_stream(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    site: int | str | Site | None = None,
    directions: Tensor | None = None,
    strengths: Tensor | float | None = None,
    edits: Edits | None = None,
    conditions: Sequence[int] | None = None,
    steer_tokens: SteerTokens = "all",
    batch_tokens: int = GENERATION_TOKENS,
    progress: bool = False,
) -> Iterator[tuple[int, list[int]]]:
    """Completions of the prompts as they end: (row, its new token ids), in any order.

    Row r draws from the stream of random numbers that (``seed``, ``streams[r]``) fixes, r itself
    unless ``streams`` is given; ``temperature=0`` takes the most probable token. A completion thus
    depends on its prompt, its steering and its stream, not on the rows it is batched with, their
    order or the budget: in float32, where two tokens come so close to each other in the draw that
    the rounding of a batch could decide, the row is read by itself. Logits in 16 bits round too
    coarsely for that, and another batch may end in another completion. End-of-text ids are the
    generation configuration's and the tokenizer's (which may be None).

    With ``site``, ``directions`` and ``strengths``, one row of each per prompt or one for all, the
    model is steered as by :func:`steering`; with ``site``, ``edits`` and ``conditions`` edit
    ``conditions[r]`` is made in row r. A prompt is read once for all rows that share it, with
    ``steer_tokens="all"`` for all that share what is done to it too. The cache holds
    ``batch_tokens`` tokens, free columns counted, fewer when memory runs out. Between two
    completions the model is as it was found. Raises :class:`InputError` for prompts that, with
    ``max_new_tokens``, do not fit the model, and for logits with NaN. Models that keep more than
    keys and values (a recurrent state) are served by their own ``generate``, prompts of one length
    at a time, which is slower.
    """
    numbers = range(len(prompts)) if streams is None else streams
    check_request(model, prompts, numbers, max_new_tokens, temperature, seed)
    check_readable(model)
    uses_slots(model)
    job = Job(
        model=model,
        prompts=prompts,
        streams=numbers,
        seed=seed,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stops=stop_ids(model, tokenizer),
        steered=_steered(
            model, len(prompts), site, (directions, strengths), (edits, conditions), steer_tokens
        ),
    )
    return _counted(job, TokenBudget(batch_tokens), progress)


def check_request(
    model: Any,
    prompts: Sequence[list[int]],
    streams: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    """Raise :class:`InputError` for what cannot be sampled of any model, or not of this one."""
    _check_options(max_new_tokens, temperature, seed)
    _check_streams(streams, len(prompts))
    _check_prompts(model, prompts, max_new_tokens)


def _counted(job: Job, budget: TokenBudget, progress: bool) -> Iterator[tuple[int, list[int]]]:
    with Progress(progress, "completions", len(job.prompts)) as bar:
        for row, tokens in generate(job, budget):
            bar.advance()
            yield row, tokens


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """End-of-text ids: the generation configuration's and the tokenizer's (which may be None)."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, (list, tuple)) else [configured]
    ids = [*listed, getattr(tokenizer, "eos_token_id", None)]
    return frozenset(int(token) for token in ids if token is not None)


def _steered(
    model: Any,
    rows: int,
    site: int | str | Site | None,
    added: tuple[Tensor | None, Tensor | float | None],
    edited: tuple[Edits | None, Sequence[int] | None],
    tokens: SteerTokens,
) -> Steered | None:
    check_steer_tokens(tokens)
    (directions, strengths), (edits, conditions) = added, edited
    adds = directions is not None or strengths is not None
    alters = edits is not None or conditions is not None
    if site is None and not adds and not alters:
        return None
    place = None if site is None else resolve_site(model, site)
    if place and directions is not None and strengths is not None and not alters:
        each, condition = _additions(place, rows, directions, strengths)
    elif place and edits is not None and conditions is not None and not adds:
        each, condition = _conditions(rows, edits, conditions)
    else:
        raise InputError(
            "steering needs all of site, directions and strengths, or of site, edits and "
            "conditions; one is missing"
        )
    return Steered(place, each, condition, prompt=tokens == "all")


def _additions(
    site: Site, rows: int, directions: Tensor, strengths: Tensor | float
) -> tuple[Edits, list[int]]:
    """The distinct ones, and each row's."""
    scale = torch.as_tensor(strengths, dtype=torch.float32)
    for name, value, row_dims in (("directions", directions, 2), ("strengths", scale, 1)):
        if value.ndim == row_dims and len(value) != rows:
            raise InputError(f"{name} has {len(value)} rows for {rows} prompts")
    added = added_rows(site, directions, scale).cpu().expand(rows, -1)
    condition = numbered(row.tobytes() for row in added.numpy())
    _, firsts = np.unique(condition, return_index=True)
    return Additions(added[firsts]), condition


def _conditions(rows: int, edits: Edits, conditions: Sequence[int]) -> tuple[Edits, list[int]]:
    if len(conditions) != rows:
        raise InputError(f"conditions has {len(conditions)} numbers for {rows} prompts")
    for number in conditions:
        if not 0 <= number < len(edits):
            raise InputError(f"edit {number} does not exist; there are 0 … {len(edits) - 1}")
    return edits, list(conditions)


def _check_options(max_new_tokens: int, temperature: float, seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise InputError(f"seed must be 0 or more and below 2**64, got {seed}")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be 0 or more, got {temperature}")


def _check_streams(streams: Sequence[int], rows: int) -> None:
    if len(streams) != rows:
        raise InputError(f"streams has {len(streams)} numbers for {rows} prompts")
    for number in streams:
        if not 0 <= number < 2**64:
            raise InputError(f"streams must be 0 or more and below 2**64, got {number}")


def _check_prompts(model: Any, prompts: Sequence[list[int]], max_new_tokens: int) -> None:
    for number, prompt in enumerate(prompts):
        label = _label(number)
        if not prompt:
            raise InputError(f"{label} has no tokens")
        check_ids(model, prompt, label)
        length = len(prompt) + max_new_tokens
        check_context(model, length, f"{label}: {len(prompt)} + {max_new_tokens} new")


def _label(number: int) -> str:
    return f"prompt {number}"
