"""Sampling completions, each row from its own stream of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget, run_batches
from deltalens.lm.forward import head_input
from deltalens.lm.hooks import frozen, input_device
from deltalens.lm.progress import Progress
from deltalens.lm.rows import TokenRow, pad_rows
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.steering import SteerTokens, steering
from deltalens.lm.tokenise import check_context, check_ids

GENERATION_TOKENS = 16_384  # held in the cache at once


@dataclass(frozen=True)
class _Steer:
    site: Site
    directions: Tensor
    strengths: Tensor
    tokens: SteerTokens

    def on(self, model: Any, numbers: list[int]) -> AbstractContextManager[None]:
        directions, strengths = self.directions, self.strengths
        if directions.ndim == 2:
            directions = directions[numbers]
        if strengths.ndim == 1:
            strengths = strengths[numbers]
        return steering(model, self.site, directions, strengths, tokens=self.tokens)


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
    steer_tokens: SteerTokens = "all",
    batch_tokens: int = GENERATION_TOKENS,
    progress: bool = False,
) -> Iterator[tuple[int, list[int]]]:
    """Completions of the prompts as they end: (row, its new token ids), in any order.

    Row r draws from the stream of random numbers that (``seed``, ``streams[r]``) fixes, r itself
    unless ``streams`` is given, so beyond the rounding of the logits its completion does not
    depend on the rows it is batched with; ``temperature=0`` takes the most probable token.
    End-of-text ids are the generation configuration's and the tokenizer's (which may be None).
    With ``site``, ``directions`` and ``strengths``, one row of each per prompt or one for all, the
    model is steered as by :func:`steering`. ``batch_tokens`` tokens, cached ones and new ones, are
    held at once; fewer when memory runs out. Raises :class:`InputError` for prompts that, with
    ``max_new_tokens``, do not fit the model, and for logits with NaN.
    """
    numbers = range(len(prompts)) if streams is None else streams
    _check_options(max_new_tokens, temperature, seed)
    _check_streams(numbers, len(prompts))
    _check_prompts(model, prompts, max_new_tokens)
    steer = _steer(model, len(prompts), site, directions, strengths, steer_tokens)
    stops = _stop_ids(model, tokenizer)
    budget = TokenBudget(batch_tokens)

    def run(rows: list[int]) -> list[list[int]]:
        draws = torch.stack([_draws(seed, numbers[row], max_new_tokens) for row in rows])
        steered = nullcontext() if steer is None else steer.on(model, rows)
        with frozen(model), torch.no_grad(), steered:
            tokens = _generate(model, [prompts[row] for row in rows], draws, temperature, stops)
        return [_cut(row, stops) for row in tokens.tolist()]

    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    return _completed(run, lengths, budget, progress)


def _completed(
    run: Callable[[list[int]], list[list[int]]],
    lengths: list[int],
    budget: TokenBudget,
    progress: bool,
) -> Iterator[tuple[int, list[int]]]:
    groups = [[row] for row in range(len(lengths))]
    with Progress(progress, "completions", len(lengths)) as bar:
        for row, tokens in run_batches(groups, lengths, run, budget, _label):
            bar.advance()
            yield row, tokens


def _generate(
    model: Any,
    prompts: Sequence[list[int]],
    draws: Tensor,
    temperature: float,
    stops: frozenset[int],
) -> Tensor:
    """New tokens [rows, steps]; a row's tokens after its end-of-text mean nothing."""
    rows = [TokenRow(prompt, [], [True] * len(prompt)) for prompt in prompts]
    batch = pad_rows(rows, range(len(rows)), side="left").to(input_device(model))
    ids, mask = batch.input_ids, batch.attention_mask
    positions = batch.position_ids
    stop_ids = torch.tensor(sorted(stops), dtype=torch.int64, device=ids.device)
    ended = torch.zeros(len(rows), dtype=torch.bool, device=ids.device)
    cache, tokens = None, []
    for step in range(draws.shape[1]):
        with head_input(model, lambda hidden: hidden[:, -1:]):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        cache = output.past_key_values
        token = _choose(output.logits[:, -1], draws[:, step], temperature).to(ids.device)
        tokens.append(token)
        ended |= torch.isin(token, stop_ids)
        if ended.all():
            break
        ids = token.unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return torch.stack(tokens, dim=1)


def _choose(logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """The token where each row's cumulative distribution passes its draw: [rows] int64."""
    if logits.isnan().any():
        raise InputError(
            "the model's logits are NaN; check its weights or lower the steering strength"
        )
    if temperature == 0:
        return logits.argmax(dim=-1)
    mass = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    sought = draws.to(mass.device).unsqueeze(1) * mass[:, -1:]
    found = torch.searchsorted(mass, sought, right=True).squeeze(1)
    return found.clamp_(max=logits.shape[-1] - 1)


def _draws(seed: int, number: int, count: int) -> Tensor:
    """``count`` uniform numbers in [0, 1) from the stream of (seed, number), float64."""
    key = np.array([seed, number], dtype=np.uint64)
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=key)).random(count))


def _cut(tokens: list[int], stops: frozenset[int]) -> list[int]:
    end = next((index for index, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, (list, tuple)) else [configured]
    ids = [*listed, getattr(tokenizer, "eos_token_id", None)]
    return frozenset(int(token) for token in ids if token is not None)


def _steer(
    model: Any,
    rows: int,
    site: int | str | Site | None,
    directions: Tensor | None,
    strengths: Tensor | float | None,
    tokens: SteerTokens,
) -> _Steer | None:
    if site is None and directions is None and strengths is None:
        return None
    if site is None or directions is None or strengths is None:
        raise InputError("steering needs all of site, directions and strengths; one is missing")
    scale = torch.as_tensor(strengths, dtype=torch.float32)
    for name, value, row_dims in (("directions", directions, 2), ("strengths", scale, 1)):
        if value.ndim == row_dims and len(value) != rows:
            raise InputError(f"{name} has {len(value)} rows for {rows} prompts")
    return _Steer(resolve_site(model, site), directions, scale, tokens)


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
