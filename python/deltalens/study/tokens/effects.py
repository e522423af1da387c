"""Which counted tokens a latent's score comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import EncodedPair
from deltalens.lm.text.token_text import token_text
from deltalens.storage.atomic import write_tensors, write_text
from deltalens.storage.json_text import parse_json

VALUES_FILE = "per_token.safetensors"
TOKENS_FILE = "tokens.jsonl"
TOKENS_KEPT = 100_000  # of the first pairs, so that memory does not grow with the study
LATENTS_KEPT = 256  # of the largest scores
VALUES_KEPT = 1 << 24  # tokens times latents, 64 MiB


@dataclass(frozen=True)
class TokenEffects:
    """Of the first pairs of a study, and of the latents with the largest scores.

    tokens: per pair the texts of its counted tokens; values: per pair δ_{i,t}(C) − δ_{i,t}(C′),
    float32 [tokens, latents] with columns in rank order. own: per pair how many of the last tokens
    only the positive completion follows, and after them only the negative one. A column's mean is
    the pair's value in ``per_pair``; with ``own`` tokens it is the sum over T, of which each counts
    as half a one. There are up to :data:`LATENTS_KEPT` latents, :data:`TOKENS_KEPT` tokens,
    and :data:`VALUES_KEPT` values.
    """

    tokens: list[list[str]]
    values: list[Tensor]
    own: list[tuple[int, int]]

    def texts(self, pair: int) -> list[str]:
        """A pair's tokens; the first of those that one completion alone follows begins with its
        sign in brackets."""
        texts, (positive, negative) = list(self.tokens[pair]), self.own[pair]
        begins = len(texts) - positive - negative, len(texts) - negative
        for sign, count, first in zip(("C", "C′"), self.own[pair], begins, strict=True):
            if count:
                texts[first] = f"[{sign}] {texts[first]}"
        return texts

    def save(self, directory: Path) -> None:
        """Write both files of a run directory."""
        lengths = torch.tensor([0, *map(len, self.values)], dtype=torch.int64)
        tensors = {"per_token": torch.cat(self.values), "offsets": lengths.cumsum(0)}
        if any(map(any, self.own)):
            tensors["own"] = torch.tensor(self.own, dtype=torch.int64)
        write_tensors(directory / VALUES_FILE, tensors)
        lines = [json.dumps(tokens, ensure_ascii=False) + "\n" for tokens in self.tokens]
        write_text(directory / TOKENS_FILE, "".join(lines))


def tokens_kept(latents: int) -> int:
    """How many tokens' effects are kept where there are so many latents."""
    return min(TOKENS_KEPT, VALUES_KEPT // min(latents, LATENTS_KEPT))


def token_effects(
    tokenizer: Any, encoded: Sequence[EncodedPair], values: Sequence[Tensor]
) -> TokenEffects:
    """``values`` of the first pairs with the texts of their tokens."""
    text = token_text(tokenizer)
    kept = encoded[: len(values)]
    tokens = [[text(token) for _, token in pair.places] for pair in kept]
    return TokenEffects(tokens, list(values), [pair.own_counted for pair in kept])


def kept_by_token(values: Sequence[Tensor], per_pair: Tensor) -> dict[str, list[int]]:
    """For metadata: pairs and latents whose effects by token were kept, each with how many there
    are in ``per_pair`` [pairs, k]."""
    kept = len(values), values[0].shape[1]
    names = ("pairs", "latents")
    both = zip(names, kept, per_pair.shape, strict=True)
    return {name: [count, of] for name, count, of in both}


def read_token_effects(run: str | Path) -> TokenEffects | None:
    """What a run directory holds; None for a run made without."""
    from safetensors.torch import load_file

    path = Path(run) / VALUES_FILE
    if not path.exists():
        return None
    try:
        stored = load_file(path)
        if stored["per_token"].ndim != 2 or stored["per_token"].dtype != torch.float32:
            raise ValueError(f"{VALUES_FILE} holds no values by token and latent")
        values = stored["per_token"].split(stored["offsets"].diff().tolist())
        lines = (Path(run) / TOKENS_FILE).read_text(encoding="utf-8").split("\n")
        tokens = [_texts(parse_json(line)) for line in lines if line]
        if list(map(len, tokens)) != list(map(len, values)):
            raise ValueError(f"{TOKENS_FILE} and {VALUES_FILE} differ in length")
        own = _own(stored, values)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"the run in {run} is damaged: {error}; run it again") from error
    return TokenEffects(tokens, list(values), own)


def _own(stored: Mapping[str, Tensor], values: Sequence[Tensor]) -> list[tuple[int, int]]:
    own = stored.get("own", torch.zeros(len(values), 2, dtype=torch.int64))
    lengths = torch.tensor(list(map(len, values)))
    if own.shape != (len(values), 2) or own.dtype != torch.int64:
        raise ValueError(f"{VALUES_FILE} holds no numbers of a completion's own tokens")
    if bool((own < 0).any()) or bool((own.sum(1) > lengths).any()):
        raise ValueError(f"{VALUES_FILE} has more of a completion's own tokens than tokens")
    return [(positive, negative) for positive, negative in own.tolist()]


def _texts(line: Any) -> list[str]:
    if not isinstance(line, list) or not all(isinstance(text, str) for text in line):
        raise ValueError(f"{TOKENS_FILE} has a line that is no list of texts")
    return line
