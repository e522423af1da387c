"""How probable a model finds each token of both completions."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.pace import advance
from deltalens.cost.total import Cost
from deltalens.errors import InputError
from deltalens.lm import EncodedPair, Pair, TokenRow
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.forward import batch_surprisals
from deltalens.lm.hooks import frozen, without_graph
from deltalens.lm.model.independence import check_readable
from deltalens.lm.pairs import pair_label
from deltalens.lm.progress import Progress
from deltalens.lm.rows import pad_rows
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.token_text import token_text
from deltalens.pairs.encode import encode_study, rows_tokens
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.lock import lock_in
from deltalens.storage.typed import checked_types

LOG_PROBS_FILE = "token_log_probs.jsonl"
_DIGITS = 6  # after the point

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenLogProbs:
    """A completion's tokens as text, and log p of each after all that stands before it."""

    tokens: list[str]
    log_p: list[float]

    @property
    def total(self) -> float:
        """log p of the completion."""
        return sum(self.log_p)


@dataclass(frozen=True)
class PairLogProbs:
    """Both completions of a pair."""

    positive: TokenLogProbs
    negative: TokenLogProbs


def pair_log_probs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> list[PairLogProbs]:
    """Of every pair; logits exist a chunk at a time, at completion tokens only.

    Raises :class:`InputError`, naming the pair, for what cannot be tokenised, does not fit the
    model, or has a probability that is NaN or 0.
    """
    check_readable(model)
    encoded = encode_study(model, tokenizer, pairs, chat_template_kwargs)
    tokens = sum(map(rows_tokens, encoded))

    def run(progress: bool = progress) -> list[PairLogProbs]:
        return _log_probs(model, tokenizer, encoded, batch_tokens, progress)

    with begun(log, Work(Cost(forward=tokens), tokens), run):
        return run()


def _log_probs(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[EncodedPair],
    batch_tokens: int,
    progress: bool,
) -> list[PairLogProbs]:
    rows = [replace(row, objective=None) for item in encoded for row in item.rows]
    found: list[list[float]] = [[] for _ in rows]
    text = token_text(tokenizer)
    batches = run_batches(
        [[number] for number in range(len(rows))],
        [row.length for row in rows],
        lambda numbers: _batch(model, rows, numbers),
        TokenBudget(batch_tokens),
        lambda number: _label(encoded, number),
    )
    with Progress(progress, "completions", len(rows)) as bar:
        for number, values in batches:
            _check_finite(values, _label(encoded, number))
            found[number] = [round(value, _DIGITS) for value in values.tolist()]
            bar.advance()
    each = [
        TokenLogProbs(list(map(text, row.completion_ids)), log_p)
        for row, log_p in zip(rows, found, strict=True)
    ]
    return [PairLogProbs(*both) for both in zip(each[::2], each[1::2], strict=True)]


def _batch(model: Any, rows: Sequence[TokenRow], numbers: list[int]) -> list[Tensor]:
    with frozen(model), without_graph():
        batch = pad_rows([rows[number] for number in numbers], numbers)
        values = -batch_surprisals(model, batch, nullcontext())
    advance(sum(rows[number].length for number in numbers))
    return list(values.double().cpu().split([len(rows[n].completion_ids) for n in numbers]))


def _check_finite(values: Tensor, label: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            f"{label}: a token's probability is NaN or 0; check the model's weights, or load it in "
            "bfloat16 or float32"
        )


def _label(encoded: Sequence[EncodedPair], number: int) -> str:
    pair, side = divmod(number, 2)
    return f"{pair_label(encoded[pair].pair, pair + 1)}: {('positive', 'negative')[side]}"


def save_log_probs(directory: str | Path, found: Sequence[PairLogProbs]) -> None:
    """Write ``token_log_probs.jsonl`` of a run directory, a line for each of its pairs."""
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in found]
    with alone(lock_in(Path(directory)), ALONE):
        write_text(Path(directory) / LOG_PROBS_FILE, "".join(lines))


def read_log_probs(directory: str | Path) -> list[PairLogProbs] | None:
    """What :func:`save_log_probs` wrote; None where there is nothing.

    Raises :class:`InputError` for a damaged file.
    """
    path = Path(directory) / LOG_PROBS_FILE
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_pair(parse_json(line)) for line in lines if line]
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"{path} is damaged: {error}; delete it and make it again") from error


def _pair(line: dict[str, dict[str, Any]]) -> PairLogProbs:
    found: PairLogProbs = checked_types(
        PairLogProbs(TokenLogProbs(**line["positive"]), TokenLogProbs(**line["negative"]))
    )
    for side in (found.positive, found.negative):
        if len(side.tokens) != len(side.log_p) or not side.tokens:
            raise ValueError("tokens and their probabilities differ in number")
        if not all(abs(value) < 1e6 for value in side.log_p):
            raise ValueError("a log-probability is not finite")
    return found
