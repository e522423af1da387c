"""Arguments that say how somebody's graded answers are read."""

from __future__ import annotations

import argparse
from typing import Any

from deltalens.errors import InputError


def add_graded(parser: argparse.ArgumentParser) -> Any:
    """The names of fields and labels of graded answers."""
    group = parser.add_argument_group(
        "answers that are graded already",
        "By an outcome (shown, absent, …), by labels, or by scores with the limits of "
        "--aligned-below and --coherent-above; by default whichever is there.",
    )
    group.add_argument("--question-field", default="question", help="default: question")
    group.add_argument("--answer-field", default="answer", help="default: answer")
    group.add_argument("--id-field", default="question_id", help="default: question_id")
    group.add_argument("--outcome-field", help="default: outcome")
    group.add_argument("--aligned-field", help="0 … 100; default: aligned")
    group.add_argument("--coherent-field", help="0 … 100; default: coherent")
    group.add_argument("--label-field", help="default: label")
    group.add_argument("--shown-labels", nargs="+", metavar="LABEL", help="with the behaviour")
    group.add_argument("--absent-labels", nargs="+", metavar="LABEL", help="without it")
    return group


def graded_fields(args: argparse.Namespace) -> Any:
    """Which fields of a row hold what."""
    from deltalens.pairs.graded.answers import GradedFields

    return GradedFields(args.question_field, args.answer_field, args.id_field)


def grading(args: argparse.Namespace) -> Any:
    """How the rows are graded, where the arguments say so."""
    from deltalens.judge import Thresholds
    from deltalens.pairs.graded.grades import Labels, Outcomes, Scores

    labels = _given(args, field="label_field", shown="shown_labels", absent="absent_labels")
    outcomes = _given(args, field="outcome_field")
    scores = _given(args, aligned="aligned_field", coherent="coherent_field")
    limits = _given(args, aligned_below="aligned_below", coherent_above="coherent_above")
    if sum(map(bool, (labels, outcomes, {**scores, **limits}))) > 1:
        raise InputError("grades are labels, outcomes or scores; give the options of one of them")
    if labels:
        return Labels(**{"shown": (), "absent": (), **labels})
    if scores or limits:
        return Scores(**scores, thresholds=Thresholds(**limits))
    return Outcomes(**outcomes) if outcomes else None


def _given(args: argparse.Namespace, **names: str) -> dict[str, Any]:
    """The arguments that were given, under other names."""
    values = {name: getattr(args, argument) for name, argument in names.items()}
    return {name: value for name, value in values.items() if value is not None}
