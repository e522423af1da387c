"""What a small sweep leaves on disk, counted line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deltalens.trials.result import SIGNS, SweepResult
from helpers.tiny_study import make_tokenizer
from helpers.tiny_sweep import PROMPTS, SETS

JUDGE = "letters-11111111"
DIRECTIONS: dict[Any, int] = {"away": 0, "toward": 1}  # and their models' seeds
FILES = [f"{direction}{part}.jsonl" for direction in DIRECTIONS for part in ("", f".{JUDGE}")]


def prompt_ids(number: int) -> list[int]:
    tokenizer, prompt = make_tokenizer(), PROMPTS[number]
    if isinstance(prompt, str):
        return tokenizer(prompt, add_special_tokens=False)["input_ids"]  # it spells out its BOS
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def lines(run: Path, name: str) -> list[str]:
    return (run / "steering" / name).read_text().splitlines()


def answered(run: Path, names: list[str]) -> int:
    """Verdicts on completions with a word in them: of others no judge is asked."""
    return sum(json.loads(row)["label"] != "empty" for name in names for row in lines(run, name))


def same(found: SweepResult, expected: SweepResult) -> bool:
    return (found.sets, found.arms) == (expected.sets, expected.arms)


def incoherent(run: Path, direction: Any, latent: int | None, strength: float) -> float:
    """The share of incoherent first samples, counted line by line."""
    rows = [json.loads(row) for row in lines(run, f"{direction}.{JUDGE}.jsonl")]
    firsts = [
        row["outcome"]
        for row in rows
        if (row["latent"], row["strength"], row["attempt"]) == (latent, strength, 0)
    ]
    return firsts.count("incoherent") / len(firsts)


def strengths_tried(run: Path, direction: Any, limit: float = 0.2) -> dict[tuple[int, int], list]:
    """(latent, sign) → strengths: the grid's, and weaker ones where none is within the budget."""
    own = incoherent(run, direction, None, 0.0)
    budget = limit if own <= limit else own + limit
    steered = {(c.latent, c.sign) for candidates in SETS.values() for c in candidates}
    tried = {one: [0.5, 2.0] for one in steered}
    for weaker in (0.25, 0.125, 0.0625):
        lacking = [
            (latent, sign)
            for latent, sign in steered
            if all(
                incoherent(run, direction, latent, SIGNS[direction] * sign * strength) > budget
                for strength in tried[latent, sign]
            )
        ]
        for one in steered if 2 * len(lacking) > len(steered) else lacking:
            tried[one].insert(0, weaker)
    return tried
