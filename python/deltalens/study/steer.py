"""Steering trials: completions under added latent directions, graded and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.errors import InputError
from deltalens.lm import Site, activations, find_bos, resolve_site, sample
from deltalens.lm.progress import Progress
from deltalens.study.encode import encode_prompt
from deltalens.study.latents import check_d_model, latent_rows, unit
from deltalens.study.pair_row import Prompt

_ROWS = 1024  # generated between two writes to disk


@dataclass(frozen=True)
class Condition:
    """What is added to a model: ``strength`` · median‖a‖ · unit(d_latent), nothing for None.

    ``group`` names the set that the latent was taken from.
    """

    group: str
    latent: int | None
    strength: float


@dataclass(frozen=True)
class Completion:
    """One graded completion of prompt number ``prompt``."""

    group: str
    latent: int | None
    strength: float
    prompt: int
    text: str
    grade: str
    seed: int


def median_norm(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, site: int | str | Site
) -> float:
    """Median over the prompts' tokens, a BOS excluded, of ‖a‖ at ``site`` without steering."""
    bos = find_bos(model, tokenizer)
    ids = _encode(model, tokenizer, prompts)
    norms = [
        rows[1 if ids[number][0] == bos else 0 :].norm(dim=1)
        for number, rows in activations(model, ids, site=site)
    ]
    return float(torch.cat(norms).median())


def steer(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    decoder: Tensor | Decoder | Any,
    conditions: Sequence[Condition],
    grade: Callable[[int, str], str],
    *,
    site: int | str | Site,
    norm: float,
    max_new_tokens: int,
    seed: int = 0,
    out: Path,
    progress: bool = False,
) -> list[Completion]:
    """One graded completion of every prompt under every condition, in that order.

    norm: the median‖a‖ that strengths multiply, see :func:`median_norm`; grade(prompt number,
    text) → label. Rows of several conditions share a batch, each with its own latent and strength
    at every token, and its own stream of random numbers. Completions are appended to the JSONL
    file ``out`` as they are made; a repeated call reads what is there and continues. Raises
    :class:`InputError` when ``out`` holds another trial.
    """
    place = resolve_site(model, site)
    decoder = as_decoder(decoder)
    check_d_model(decoder, place.d_model, place.path)
    ids = _encode(model, tokenizer, prompts)
    added = _directions(decoder, conditions, place.d_model, norm)
    done = _read(out, conditions, len(prompts), seed)
    rows = [(c, prompt) for c in range(len(conditions)) for prompt in range(len(prompts))]
    with Progress(progress, "steered completions", len(rows)) as bar:
        bar.advance(len(done))
        for start in range(len(done), len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            tokens = sample(
                model,
                tokenizer,
                [ids[prompt] for _, prompt in chunk],
                max_new_tokens=max_new_tokens,
                seed=seed,
                streams=range(start, start + len(chunk)),
                site=place,
                directions=added[[c for c, _ in chunk]],
                strengths=1.0,
            )
            finished = [
                _graded(tokenizer.decode(new), conditions[c], prompt, grade, seed)
                for (c, prompt), new in zip(chunk, tokens, strict=True)
            ]
            _append(out, finished)
            done += finished
            bar.advance(len(chunk))
    return done


def _encode(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    if not prompts:
        raise InputError("no prompts to steer on; give at least one")
    bos = find_bos(model, tokenizer)
    return [
        encode_prompt(tokenizer, prompt, bos=bos, name=f"prompt {number}")
        for number, prompt in enumerate(prompts)
    ]


def _directions(
    decoder: Decoder, conditions: Sequence[Condition], d_model: int, norm: float
) -> Tensor:
    """What each condition adds, [conditions, d_model]."""
    added = torch.zeros(len(conditions), d_model, dtype=torch.float64)
    steered = [row for row, condition in enumerate(conditions) if condition.latent is not None]
    if steered:
        latents = [latent for c in conditions if (latent := c.latent) is not None]
        strengths = torch.tensor([conditions[row].strength for row in steered]).double()
        added[steered] = norm * strengths[:, None] * unit(latent_rows(decoder, latents))
    return added.float()


def _graded(
    text: str, condition: Condition, prompt: int, grade: Callable[[int, str], str], seed: int
) -> Completion:
    return Completion(
        **asdict(condition), prompt=prompt, text=text, grade=grade(prompt, text), seed=seed
    )


def _append(path: Path, completions: Sequence[Completion]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in completions]
    with path.open("a", encoding="utf-8") as stream:
        stream.write("".join(lines))


def _read(path: Path, conditions: Sequence[Condition], prompts: int, seed: int) -> list[Completion]:
    """The completions that are there already, in order from the first."""
    kept = _whole_lines(path) if path.exists() else []
    for row, item in enumerate(kept):
        expected = conditions[row // prompts] if row < prompts * len(conditions) else None
        found = Condition(item.group, item.latent, item.strength)
        if (found, item.prompt, item.seed) != (expected, row % prompts, seed):
            raise InputError(f"{path} holds another trial; choose another run directory")
    return kept


def _whole_lines(path: Path) -> list[Completion]:
    """All lines but one that was cut while it was written, which is removed from the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    try:
        return [Completion(**json.loads(line)) for line in whole.decode("utf-8").split("\n")[:-1]]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no record of steered completions; delete it") from error
