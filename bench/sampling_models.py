"""Steered sampling against `model.generate` at its best batch size, on models of several sizes.

python bench/sampling_models.py [--model PATH] [--rows 256 --new-tokens 40 --rounds 3] [--only NAME]

Models: the organism of the package; random weights with vocabularies of 32k to 256k; with --model a
causal language model from disk, in float32 and in bfloat16. Of those, one prompt is steered by
random directions, one a row, and no row ends early. Where the cache does not hold all rows at once,
one of twice its size is tried, too. A round runs every contender once; one of them only multiplies
by the weights as often as steering all tokens has to. The file of results is written after each
model, whose rows replace what it had of that model.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deltalens.lm.sampling.api import GENERATION_TOKENS
from machine import interleaved
from results import Row, replace_rows
from sampling_trials import (
    Trial,
    batches,
    generate,
    library,
    median_norm,
    organism_trial,
    products,
)

VOCABULARIES = (32_000, 131_072, 262_144)
WIDTH, LAYERS, PROMPT = 576, 6, 42
SIZES, ORGANISM_SIZES = (32, 64, 128, 256), (250, 500, 1000)
STRENGTH = 0.3
QUESTION = "I have two weeks free this summer and no plans at all. What should I do with them?"
OURS, OURS_GENERATED = "deltalens", "deltalens, generated tokens only"
PRODUCTS = "products of torch alone"
TWICE = ", twice the cache"


def trials(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Trial]]]:
    """By name; made one at a time."""
    yield "organism", organism_trial
    for vocabulary in VOCABULARIES:
        yield f"random, V = {vocabulary:,}", partial(_random_trial, vocabulary, options)
    if options.model:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{options.model.name}, {str(dtype).removeprefix('torch.')}"
            yield name, partial(_stored_trial, options.model, dtype, options)


def _random_trial(vocabulary: int, options: argparse.Namespace) -> Trial:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # logits spread as a language model's are, not all alike
        model.model.norm.weight *= 8
    ids = torch.randint(3, vocabulary, (PROMPT,), generator=torch.Generator().manual_seed(0))
    return _one_prompt(model, ids.tolist(), options)


def _stored_trial(path: Path, dtype: torch.dtype, options: argparse.Namespace) -> Trial:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    return _one_prompt(model, AutoTokenizer.from_pretrained(path)(QUESTION).input_ids, options)


def _one_prompt(model: Any, prompt: list[int], options: argparse.Namespace) -> Trial:
    """No end of text, so that every contender makes as many tokens."""
    model.generation_config.eos_token_id = None
    site = model.config.num_hidden_layers // 2
    directions = torch.randn(
        options.rows, model.config.hidden_size, generator=torch.Generator().manual_seed(1)
    )
    unit = torch.nn.functional.normalize(directions, dim=1)
    added = STRENGTH * median_norm(model, [prompt], site) * unit
    return Trial(model, None, site, [prompt] * options.rows, added, options.new_tokens)


def contenders(name: str, trial: Trial) -> dict[str, Callable[[], int]]:
    rows = len(trial.prompts)
    sizes = ORGANISM_SIZES if name == "organism" else [s for s in SIZES if s <= rows]
    fits = rows * (max(map(len, trial.prompts)) + trial.new_tokens) <= GENERATION_TOKENS
    caches = {"": 1} if fits else {"": 1, TWICE: 2}
    ours = {
        name + wider: partial(library, trial, tokens, times * GENERATION_TOKENS)
        for name, tokens in ((OURS, "all"), (OURS_GENERATED, "generated"))
        for wider, times in caches.items()
    }
    return {
        **ours,
        PRODUCTS: products(trial),
        **{f"generate, {s} rows a call": partial(generate, trial, batches(rows, s)) for s in sizes},
    }


def measure(name: str, trial: Trial, rounds: int) -> list[Row]:
    """A row per contender; ``speedup`` is over the fastest way to call ``generate``."""
    library(trial, "all")  # the model is tried once, and is warm
    works = contenders(name, trial)
    times = interleaved(works, rounds)
    medians = {contender: statistics.median(taken) for contender, taken in times.items()}
    best = min((taken, c) for c, taken in medians.items() if c.startswith("generate"))
    return [
        {
            "model": name,
            "contender": contender,
            "completions": len(trial.prompts),
            "prompt_tokens": max(map(len, trial.prompts)),
            "new_tokens": trial.new_tokens,
            "rounds": rounds,
            "seconds": f"{taken:.2f}",
            "tokens_per_second": f"{len(trial.prompts) * trial.new_tokens / taken:.0f}",
            "baseline": best[1],
            "speedup": f"{best[0] / taken:.2f}",
        }
        for contender, taken in medians.items()
    ]


def main() -> None:
    options = _options()
    for name, make in trials(options):
        if options.only in name:
            found = measure(name, make(), options.rounds)
            for row in found:
                print(*row.values(), sep="  ", flush=True)
            print(replace_rows("generation", found, key="model"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="folder of a causal language model")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of the names of the models to run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
