"""What studies must have in common for their latents and ranks to mean the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.points.names import saved_name
from deltalens.study.attribution import Attribution
from deltalens.study.run import BEFORE

MUST_AGREE = {
    "score": "attribute to latents and to directions in one way in both",
    "ranking": "rank both at the same end",
    "normalize": "normalise decoder rows in both or in neither",
}
MAY_DIFFER = (
    "loss",
    "target",
    "target_code",
    "gradients",
    "steps",
    "present_only",
    "prefix_tokens",
    "align",
)


def check_comparable(a: Attribution, b: Attribution, names: tuple[str, str]) -> None:
    """Raise :class:`InputError` for different SAEs, sites or kinds of score and ranking."""
    both = f"{names[0]} and {names[1]}"
    saes, sites, options = (
        [read(run.metadata) for run in (a, b)] for read in (_sae, _site, recorded_options)
    )
    if saes[0] != saes[1]:
        raise InputError(f"{both} used different SAEs, whose latents have nothing in common")
    if sites[0] != sites[1]:
        raise InputError(f"{both} attribute at different sites, {sites[0]} and {sites[1]}")
    for name, remedy in MUST_AGREE.items():
        found = [option.get(name) for option in options]
        if found[0] != found[1]:
            raise InputError(f"{both} differ in {name} ({found[0]} and {found[1]}); {remedy}")


def differences(
    a: Attribution, b: Attribution, options: Iterable[str] = MAY_DIFFER
) -> dict[str, tuple[Any, Any]]:
    """Which of ``options`` differ, and whether the baseline does, with both values."""
    first, second = (recorded_options(run.metadata) for run in (a, b))
    pairs = {name: (first.get(name), second.get(name)) for name in options}
    pairs["baseline"] = _baseline(a.metadata), _baseline(b.metadata)
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def recorded_options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options; runs made before there was a choice say nothing of it."""
    return {**BEFORE, **metadata["options"]}


def _sae(metadata: Mapping[str, Any]) -> Any:
    return metadata["fingerprints"]["sae"]


def _baseline(metadata: Mapping[str, Any]) -> Any:
    return metadata["fingerprints"]["baseline"]


def _site(metadata: Mapping[str, Any]) -> Any:
    return saved_name(metadata["options"]["site"])
