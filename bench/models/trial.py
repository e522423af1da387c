"""One model tried: attributed, sampled and ablated, each beside the naive way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import naive
from deltalens import InputError, Pair, ablate, attribute
from deltalens.lm import sample

LATENTS = 48
SAME = 1e-4  # of the largest value
NEW_TOKENS = 8
STRENGTH = 2.0


@dataclass
class Outcome:
    """What became of one operation: "equal", "refused", "wrong" or "crashed", and its line.

    error: the largest, of the largest value that there should be.
    """

    word: str
    error: float | None = None
    line: str = ""


@dataclass
class Subject:
    """A model to try.

    truth: a model that computes the same, for the naive passes; exact: the same in more precision,
    where the model rounds so coarsely that two right ways differ: then errors are from exact, and
    may be twice as large as the naive way's own. within: the context that all is done in.
    """

    model: Any
    layer: int = 1
    vocabulary: int = 90
    truth: Any = None
    exact: Any = None
    within: Callable[[], Any] = nullcontext
    notes: list[str] = field(default_factory=list)

    def tried(self) -> dict[str, Outcome]:
        """Every operation's outcome."""
        width = int(naive.text_config(self.model).hidden_size)
        generator = torch.Generator().manual_seed(1)
        rows = torch.randn(LATENTS, width, generator=generator)
        mean = torch.randn(width, generator=generator)
        pairs = triples(self.vocabulary)
        with warnings.catch_warnings(), self.within():
            warnings.simplefilter("ignore")
            return {
                "attribute": outcome(lambda: self._attributed(pairs, rows, mean)),
                "sample": outcome(lambda: self._sampled(pairs, rows[0])),
                "ablate": outcome(lambda: self._ablated(pairs[:2], rows[:2], mean)),
            }

    def _attributed(self, pairs: list[naive.Triple], rows: Tensor, mean: Tensor) -> Outcome:
        found = attribute(
            self.model,
            None,
            [Pair(*triple) for triple in pairs],
            rows,
            site=self.layer,
            baseline=mean,
            k=LATENTS,
            sinks=None,
            check=0,
        )
        got = torch.zeros(LATENTS, dtype=torch.float64)
        got[found.latents] = found.scores.double()
        return self._compared(got, naive.scores, pairs, rows, mean)

    def _ablated(self, pairs: list[naive.Triple], rows: Tensor, mean: Tensor) -> Outcome:
        got = ablate(
            self.model,
            None,
            [Pair(*triple) for triple in pairs],
            rows,
            [0, 1],
            site=self.layer,
            baseline=mean,
            sinks=None,
        )
        return self._compared(got, naive.ablation, pairs, rows, mean)

    def _compared(self, got: Tensor, way: Callable[..., Tensor], *arguments: Any) -> Outcome:
        model = self.model if self.truth is None else self.truth
        expected = way(model, naive.block(model, self.layer), *arguments)
        if self.exact is None:
            return compared(got, expected)
        exact = way(self.exact, naive.block(self.exact, self.layer), *arguments)
        return compared(got, exact, allowed=2 * relative_error(expected, exact))

    def _sampled(self, pairs: list[naive.Triple], direction: Tensor) -> Outcome:
        prompts = [prompt for prompt, *_ in pairs]
        lines = []
        for steered in ("all", "generated"):
            got = sample(
                self.model,
                None,
                prompts,
                max_new_tokens=NEW_TOKENS,
                temperature=0.0,
                site=self.layer,
                directions=direction,
                strengths=STRENGTH,
                steer_tokens=steered,
            )
            later = steered == "generated"
            right = [
                self._right(prompt, ids, STRENGTH * direction, later)
                for prompt, ids in zip(prompts, got, strict=True)
            ]
            if not all(right):
                count = f"{right.count(False)} of {len(got)}"
                lines.append(f"steering {steered}: {count} rows are other tokens")
        return Outcome("wrong" if lines else "equal", line="; ".join(lines))

    def _right(self, prompt: list[int], got: list[int], added: Tensor, later: bool) -> bool:
        """Whether each token is the most probable one; or all are those of the model's own
        ``generate``, where that gives others with its cache than without."""
        model = self.model if self.truth is None else self.truth
        where = naive.block(model, self.layer)
        stops = _stops(self.model)
        options = {"tokens": NEW_TOKENS, "generated_only": later}
        gap = naive.shortfall(model, where, prompt, got, added, stops=stops, **options)
        if gap <= self._tie():
            return True
        own = naive.cached(model, where, prompt, added, **options)
        if [token for token in own if token not in stops] != got:
            return False
        self._note(
            "its own generate gives other tokens with a cache than without, and so does ours"
        )
        return True

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _tie(self) -> float:
        """Logits that differ by less, of the largest, are equal but for rounding."""
        dtype = self.model.dtype if self.exact is not None else torch.float32
        return 8 * torch.finfo(dtype).eps


def compared(got: Tensor, expected: Tensor, allowed: float = SAME) -> Outcome:
    """Equal where the largest difference is at most ``allowed``, or 1e-4."""
    error = relative_error(got, expected)
    return Outcome("equal" if error <= max(SAME, allowed) else "wrong", error)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """max |got − expected| / max |expected|; an error where that says nothing."""
    largest = expected.abs().max()
    if not (largest > 0 and expected.isfinite().all()):
        raise ArithmeticError(f"the naive result is no measure: its largest value is {largest}")
    return float((got - expected).abs().max() / largest)


def triples(vocabulary: int, count: int = 4) -> list[naive.Triple]:
    """Pairs of random ids of many lengths, without a BOS, which would not be counted."""
    generator = torch.Generator().manual_seed(0)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    return [(ids(5, 14), ids(1, 8), ids(1, 8)) for _ in range(count)]


def outcome(work: Callable[[], Outcome]) -> Outcome:
    """The work's outcome, or the line it failed with."""
    try:
        return work()
    except InputError as error:
        return Outcome("refused", line=str(error))
    except Exception as error:
        return Outcome("crashed", line=described(error))


def described(error: BaseException) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:250]}"


def _stops(model: Any) -> frozenset[int]:
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset([listed] if isinstance(listed, int) else listed or [])
