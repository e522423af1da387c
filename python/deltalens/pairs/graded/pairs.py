"""Pairs from answers that were sampled and graded elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deltalens.pairs.build import build_pairs
from deltalens.pairs.graded.answers import GradedFields, read_answers
from deltalens.pairs.graded.grades import Grading
from deltalens.pairs.pair_set import PairSet, check_any
from deltalens.pairs.questions import Question
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.storage.lock import lock_beside

SOURCE = "graded"


def pairs_from_graded(
    path: str | Path,
    *,
    fields: GradedFields | None = None,
    grading: Grading | None = None,
    questions: Sequence[Question] | None = None,
    per_prompt: int = 1,
    seed: int = 0,
    out: str | Path | None = None,
) -> PairSet:
    """Pairs of every prompt in a CSV or JSONL file that has graded answers of both kinds.

    A row has what the user asked (or, in JSONL, a ``prompt`` or ``messages``), the answer, its
    grade and optionally its question's id. grading: how grades are written; by default outcomes
    where the first row has an ``outcome``, else the scores ``aligned`` and ``coherent`` with the
    thresholds of Betley et al. Both kinds must be coherent. questions: where the whole prompts
    are, with their system messages, found by id and text. per_prompt, seed: see
    :func:`~deltalens.pairs.build.build_pairs`. With ``out`` the pairs are written there,
    and settings and counts beside them.

    Raises :class:`InputError` naming the row for what cannot be read, and when no prompt has both
    kinds.
    """
    path = Path(path)
    answers, grading = read_answers(path, fields=fields, grading=grading, questions=questions)
    pairs, counts = build_pairs(answers, per_prompt=per_prompt, seed=seed)
    settings = {
        "source": SOURCE,
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "grading": {"by": type(grading).__name__.lower(), **grading.as_dict()},
        "pairing": {"per_prompt": per_prompt, "seed": seed, "length": "nearest"},
    }
    found = PairSet(pairs, counts, settings)
    check_any(found)
    if out is not None:
        with alone(lock_beside(Path(out)), ALONE):
            found.save(out)
    return found
