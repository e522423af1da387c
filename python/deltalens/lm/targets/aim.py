"""A study's target, put to its pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.pairs import pair_label
from deltalens.lm.targets.objectives import Answers, Weighted
from deltalens.lm.targets.target import Side, Target
from deltalens.lm.text.encoded import EncodedPair
from deltalens.lm.text.token_text import token_text
from deltalens.lm.tokenise import check_ids

_NAMED = 5  # completions that an error names


def aimed(
    model: Any, tokenizer: Any, encoded: Sequence[EncodedPair], target: Target
) -> list[EncodedPair]:
    """The pairs with what the loss of each completion is of.

    Raises :class:`InputError`, naming pairs, where nothing of a completion is left to look at, and
    for all that :meth:`~deltalens.lm.targets.target.Target.objective` refuses.
    """
    found = []
    nothing: list[str] = []
    for number, pair in enumerate(encoded, start=1):
        objectives = []
        for side in _sides(pair, number):
            objective = target.objective(tokenizer, side)
            if isinstance(objective, Weighted) and not any(objective.weights):
                nothing.append(side.label)
            if isinstance(objective, Answers):
                check_ids(model, objective.tokens, f"{side.label}: {target.name}")
            objectives.append(objective)
        positive, negative = objectives
        found.append(replace(pair, objectives=(positive, negative)))
    if nothing:
        named = ", ".join(nothing[:_NAMED]) + (", …" if nothing[_NAMED:] else "")
        raise InputError(
            f"{len(nothing)} of {2 * len(found)} completions ({named}) have no token that counts "
            f"with the target {target.name} and their weights; leave those pairs out"
        )
    return found


def _sides(pair: EncodedPair, number: int) -> list[Side]:
    label = pair_label(pair.pair, number)
    return [
        Side(
            f"{label}: {name}",
            row.prompt_ids,
            row.completion_ids,
            None if weights is None else weights[pair.prefix :],
        )
        for name, row, weights in zip(
            ("positive", "negative"),
            pair.rows,
            (pair.pair.positive_weights, pair.pair.negative_weights),
            strict=True,
        )
    ]


def aimed_at(tokenizer: Any, encoded: Sequence[EncodedPair]) -> dict[str, Any]:
    """For metadata: how many of the completions' tokens the losses are of, whether these have
    weights of their own, and which tokens answers begin with, in how many completions."""
    objectives = [objective for pair in encoded for objective in pair.objectives]
    weighted = [each for each in objectives if isinstance(each, Weighted)]
    said = token_text(tokenizer)
    answers = Counter(each.tokens for each in objectives if isinstance(each, Answers))
    rows = [row for pair in encoded for row in pair.rows]
    return {
        "tokens": sum(place < len(row.completion_ids) for row in rows for place, *_ in row.aims),
        "of_tokens": sum(len(row.completion_ids) for row in rows),
        "weighted": any({*each.weights} - {0.0, 1.0} for each in weighted),
        "answers": [
            {"first": said(first), "second": said(second), "completions": count}
            for (first, second), count in answers.most_common()
        ],
    }
