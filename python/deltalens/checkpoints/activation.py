"""What the Δ-activation in a run directory says of chosen latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.checkpoints.known import known
from deltalens.errors import InputError
from deltalens.lm.points.names import saved_name
from deltalens.study.activation.difference import VALUES_FILE, ActivationDifference
from deltalens.study.attribution import Attribution


@dataclass(frozen=True)
class Active:
    """Mean activation and share of active tokens in the completions with the behaviour, or in the
    checkpoint where it was compared with another model; ``…_against``: in those without, or in
    that model. difference: mean − mean_against, with its standard error."""

    mean: float | None
    mean_against: float | None
    difference: float | None
    difference_stderr: float | None
    frequency: float | None
    frequency_against: float | None


@dataclass(frozen=True)
class Source:
    """What the means are over: tokens of "completion", "prompt" or "all", of how many prompts or
    pairs, and which model they are compared with, None for the checkpoint itself."""

    tokens: str
    prompts: int
    against: str | None


def read_activation(run: Path, result: Attribution) -> ActivationDifference | None:
    """What is kept in ``run``, None where nothing is.

    Raises :class:`InputError` where it is damaged, or of another SAE or site than the run.
    """
    if not (run / VALUES_FILE).exists():
        return None
    found = ActivationDifference.load(run)
    if found.metadata.get("sae_fingerprint") != result.metadata["fingerprints"]["sae"]:
        raise InputError(f"{run / VALUES_FILE} is of another SAE than the run; delete it")
    said = found.metadata
    if len(found.mean) != result.metadata["counts"]["latents"] or not isinstance(
        said.get("fingerprints", {}), dict
    ):
        raise InputError(f"{run / VALUES_FILE} is damaged; delete it")
    site = said.get("site")
    if not isinstance(site, str) or saved_name(site) != result.site:
        raise InputError(f"{run / VALUES_FILE} is of another site than the run; delete it")
    return found


def source_of(found: ActivationDifference) -> Source:
    """What it was made of."""
    said: dict[str, Any] = found.metadata
    against = said.get("against")
    return Source(str(said.get("tokens")), found.prompts, None if against is None else str(against))


def active(found: ActivationDifference, latents: Sequence[int]) -> dict[int, Active]:
    """Of each latent."""
    columns = {
        "mean": found.mean,
        "mean_against": found.mean_against,
        "difference": found.difference,
        "difference_stderr": found.stderr,
        "frequency": found.frequency,
        "frequency_against": found.frequency_against,
    }
    return {
        latent: Active(**{name: known(float(column[latent])) for name, column in columns.items()})
        for latent in latents
    }
