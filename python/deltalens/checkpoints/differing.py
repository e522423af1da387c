"""What differs between the runs of checkpoints beside their models, in lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deltalens.checkpoints.evidence import Evidence
from deltalens.errors import InputError, quoted
from deltalens.lm.pairs import pair_label
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.attribution import Attribution
from deltalens.study.comparison.comparable import (
    MUST_AGREE,
    check_comparable,
    differences,
    recorded_options,
)

_NO_MATTER = {"k", "save_scores", "impl", "site", *MUST_AGREE}
_SWEEP = ("prompts", "max_new_tokens", "temperature", "steer_tokens", "chat_template_kwargs")
_TEXTS = ("held_out", "value", "shown", "absent", "prompts")
_NAMED = 3


def check_runs(found: Sequence[Evidence]) -> None:
    """Raise :class:`InputError` for runs of different SAEs, sites or kinds of score, for means of
    activation over different tokens, and for sweeps of different interventions."""
    first = found[0]
    for other in found[1:]:
        check_comparable(first.result, other.result, (first.name, other.name))
    means = [one for one in found if one.activation is not None]
    for other in means[1:]:
        here, there = (_measured(one.activation) for one in (means[0], other))
        if here != there:
            raise InputError(
                f"Δ-activation of {means[0].name} is {here}, of {other.name} {there}; make both "
                "alike with deltalens delta-activation"
            )

    sweeps = [(one.name, one.sweep.intervention) for one in found if one.sweep is not None]
    for name, done in sweeps[1:]:
        if done != sweeps[0][1]:
            raise InputError(
                f"the sweep of {sweeps[0][0]} is of the intervention {quoted(sweeps[0][1])}, of "
                f"{name} {quoted(done)}; steer alike, each into a run of its own"
            )


def _measured(activation: ActivationDifference | None) -> str:
    assert activation is not None
    said = activation.metadata
    between = "in one model" if said.get("against") is None else "between two models"
    prefix = said.get("prefix_tokens")
    after = f" after the first {prefix}" if prefix else ""
    return f"over {said.get('tokens')} tokens{after} {between}"


def same_pairs(a: Attribution, b: Attribution) -> bool:
    """Whether both studied the same pairs in the same order."""
    return _contents(a) == _contents(b)


def notes(found: Sequence[Evidence]) -> list[str]:
    """Each of the others against the first."""
    lines: list[str] = []
    for other in found[1:]:
        lines += _study_notes(found[0], other)
    return [*lines, *_others(found), *_missing(found)]


def _study_notes(first: Evidence, other: Evidence) -> Iterator[str]:
    here, there = first.result, other.result
    both = f"{first.name} and {other.name}"
    if first.about.model_fingerprint == other.about.model_fingerprint:
        yield f"{both} are runs of the same model"
    names = {*recorded_options(here.metadata), *recorded_options(there.metadata)} - _NO_MATTER
    for name, (a, b) in differences(here, there, sorted(names)).items():
        yield f"{both} differ in {name} ({quoted(a)} and {quoted(b)})"
    if not same_pairs(here, there):
        yield _pairs_note(first, other)
    elif first.about.pairs != other.about.pairs:
        yield f"the pairs of {both} are the same, with other ids or other tokens"


def _pairs_note(first: Evidence, other: Evidence) -> str:
    contents = [_contents(one.result) for one in (first, other)]
    shared = {*contents[0]} & {*contents[1]}
    counts = f"{first.name} has {len(contents[0])} pairs and {other.name} {len(contents[1])}"
    if {*contents[0]} == {*contents[1]}:
        return f"{counts}, the same in another order"
    only = [_only(one, mine, shared) for one, mine in zip((first, other), contents, strict=True)]
    return f"{counts}, of which {len(shared)} are the same; {'; '.join(filter(None, only))}"


def _only(one: Evidence, contents: Sequence[str], shared: set[str]) -> str:
    labels = [
        pair_label(pair, number)
        for number, (pair, content) in enumerate(
            zip(one.result.pairs, contents, strict=True), start=1
        )
        if content not in shared
    ]
    more = ", …" if len(labels) > _NAMED else ""
    return f"only in {one.name}: {', '.join(labels[:_NAMED])}{more}" if labels else ""


def _contents(result: Attribution) -> list[str]:
    return [
        json.dumps([*pair.prompts, pair.alignment, pair.positive, pair.negative], sort_keys=True)
        for pair in result.pairs
    ]


def _others(found: Sequence[Evidence]) -> Iterator[str]:
    """Of Δ-activation and sweeps, where two have them."""
    for what, read in _READ.items():
        values = [(one.name, read(one)) for one in found]
        there = [(name, value) for name, value in values if value is not None]
        for name, value in there[1:]:
            for key in value:
                before = there[0][1].get(key)
                if before != value[key]:
                    said = "" if key in _LONG else f" ({quoted(before)} and {quoted(value[key])})"
                    yield f"{what} of {there[0][0]} and {name} differ in {key}{said}"


def _activation(one: Evidence) -> Mapping[str, Any] | None:
    if one.activation is None:
        return None
    said = one.activation.metadata
    against = said.get("fingerprints", {}).get("against")
    return {"number of prompts": one.activation.prompts, "the model compared with": against}


def _sweep(one: Evidence) -> Mapping[str, Any] | None:
    if one.sweep is None:
        return None
    said = one.sweep.settings
    named = {name: said.get(name) for name in _SWEEP}
    return {"judge": said["judge"]["id"], **named, "their prompts' texts": one.prompts}


def _detection(one: Evidence) -> Mapping[str, Any] | None:
    if one.detection is None:
        return None
    return {name: one.detection.metadata.get(name) for name in _TEXTS}


_LONG = {"their prompts' texts", "the model compared with"}
_READ: Mapping[str, Callable[[Evidence], Mapping[str, Any] | None]] = {
    "the Δ-activations": _activation,
    "the sweeps": _sweep,
    "the held-out texts": _detection,
}


def _missing(found: Sequence[Evidence]) -> Iterator[str]:
    """What some have and others do not."""
    commands = {
        "Δ-activation": ("activation", "deltalens delta-activation --out RUN"),
        "sweep": ("sweep", "deltalens steer RUN"),
        "detection": ("detection", "deltalens detect RUN"),
    }
    for what, (field, command) in commands.items():
        without = [one.name for one in found if getattr(one, field) is None]
        if 0 < len(without) < len(found):
            yield f"no {what} in {', '.join(without)}: {command}"
