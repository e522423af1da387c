"""Which tokens of the prompts a latent's score comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import EncodedPair
from deltalens.lm.text.token_text import token_text
from deltalens.storage.atomic import write_tensors, write_text

VALUES_FILE = "per_token.safetensors"
TOKENS_FILE = "tokens.jsonl"
TOKENS_KEPT = 100_000  # of the first pairs, so that memory does not grow with the study


@dataclass(frozen=True)
class TokenEffects:
    """Of the first pairs of a study, up to :data:`TOKENS_KEPT` tokens.

    tokens: per pair the texts of its counted prompt tokens; values: per pair δ_{i,t}(C) −
    δ_{i,t}(C′), float32 [tokens, k] with columns in rank order. A column's mean is the pair's
    value in ``per_pair``.
    """

    tokens: list[list[str]]
    values: list[Tensor]

    def save(self, directory: Path) -> None:
        """Write both files of a run directory."""
        lengths = torch.tensor([0, *map(len, self.values)], dtype=torch.int64)
        tensors = {"per_token": torch.cat(self.values), "offsets": lengths.cumsum(0)}
        write_tensors(directory / VALUES_FILE, tensors)
        lines = [json.dumps(tokens, ensure_ascii=False) + "\n" for tokens in self.tokens]
        write_text(directory / TOKENS_FILE, "".join(lines))


def token_effects(
    tokenizer: Any, encoded: Sequence[EncodedPair], values: Sequence[Tensor]
) -> TokenEffects:
    """``values`` of the first pairs with the texts of their tokens."""
    text = token_text(tokenizer)
    tokens = [list(map(text, counted_ids(pair))) for pair in encoded[: len(values)]]
    return TokenEffects(tokens, list(values))


def counted_ids(pair: EncodedPair) -> list[int]:
    """The prompt's token ids that are attributed to."""
    return [token for token, counted in zip(pair.prompt_ids, pair.counted, strict=True) if counted]


def read_token_effects(run: str | Path) -> TokenEffects | None:
    """What a run directory holds; None for a run made without."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(run) / VALUES_FILE
    if not path.exists():
        return None
    try:
        stored = load_file(path)
        values = stored["per_token"].split(stored["offsets"].diff().tolist())
        lines = (Path(run) / TOKENS_FILE).read_text(encoding="utf-8").split("\n")
        tokens = [json.loads(line) for line in lines if line]
        if list(map(len, tokens)) != list(map(len, values)):
            raise ValueError(f"{TOKENS_FILE} and {VALUES_FILE} differ in length")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"the run in {run} is damaged: {error}; run it again") from error
    return TokenEffects(tokens, list(values))
