"""Whether one token of the prompts decides a latent's score, as attention sinks do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.lm import EncodedPair
from deltalens.lm.text.token_text import token_text

SHARE = 0.5
LARGE = 3.0  # times the median norm: a token that may be a sink
_FEWEST = 8  # counted tokens of a prompt, on average: of fewer, one may well carry most
_NAMED = 5


class Dominant(NamedTuple):
    """One place of all prompts, or one token wherever it is, with more than half of some scores.

    norm: the mean of ‖a‖ there over the median of the counted tokens'. ranks: the latents', from 0.
    """

    position: int | None
    token: int | None
    norm: float
    ranks: list[int]

    def describe(self, tokenizer: Any, latents: Sequence[int]) -> dict[str, Any]:
        """For metadata."""
        return {
            "position": self.position,
            "token": None if self.token is None else token_text(tokenizer)(self.token),
            "norm": self.norm,
            "latents": [latents[rank] for rank in self.ranks],
        }


def dominant_tokens(
    encoded: Sequence[EncodedPair], per_token: Sequence[Tensor], norms: Sequence[Tensor]
) -> list[Dominant]:
    """The places and the tokens that carry more than half of a score, most latents first.

    per_token: of the first pairs, δ_{i,t}(C) − δ_{i,t}(C′) [counted tokens, k]; norms: their ‖a_t‖.
    A share is of the sum over places, or over tokens, of |contribution|, so that scores that cancel
    have shares too.
    """
    if not per_token or sum(map(len, per_token)) < _FEWEST * len(per_token):
        return []
    median = float(torch.cat(list(norms)).median())
    sizes = torch.cat(list(norms)).double() / median
    pairs = encoded[: len(per_token)]
    weighted = torch.cat(
        [values.double() / pair.tokens for pair, values in zip(pairs, per_token, strict=True)]
    )
    places, tokens = torch.tensor([place for pair in pairs for place in pair.places]).T
    by_place = _over_half(places, weighted, sizes)
    by_token = _over_half(tokens, weighted, sizes)
    found = [Dominant(place, None, size, ranks) for place, size, ranks in by_place]
    found += [Dominant(None, token, size, ranks) for token, size, ranks in by_token]
    return sorted(found, key=lambda one: -len(one.ranks))


def _over_half(
    keys: Tensor, weighted: Tensor, sizes: Tensor
) -> Iterator[tuple[int, float, list[int]]]:
    """(key, mean size, columns) where rows of one key sum to more than half of a column."""
    unique, group = keys.unique(return_inverse=True)
    sums = weighted.new_zeros(len(unique), weighted.shape[1]).index_add_(0, group, weighted).abs()
    over = sums > SHARE * sums.sum(0)
    for number in over.any(1).nonzero()[:, 0].tolist():
        size = float(sizes[group == number].mean())
        yield int(unique[number]), size, over[number].nonzero()[:, 0].tolist()


def warn_of_sinks(dominant: Sequence[dict[str, Any]], count: int) -> None:
    """One warning when a described dominant token has a norm far above the median."""
    large = [token for token in dominant if token["norm"] > LARGE]
    if not large:
        return
    token, latents = large[0], large[0]["latents"]
    named = ", ".join(map(str, latents[:_NAMED])) + (", …" if len(latents) > _NAMED else "")
    where = (
        f"the token at position {token['position']} of the prompts"
        if token["token"] is None
        else f"the prompts' token {token['token']!r}"
    )
    warnings.warn(
        f"{where}, of {token['norm']:.0f} times the median norm, carries more than half of the "
        f"score of {len(latents)} of {count} latents ({named}): if it is an attention sink, the "
        "ranking is its own; lower Sinks.times_median (--sink-norm) to leave it out",
        stacklevel=2,
    )
