"""Everything that there is of one checkpoint, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.checkpoints.activation import read_activation
from deltalens.checkpoints.steered import read_sweep
from deltalens.errors import InputError
from deltalens.lm.points.names import saved_name
from deltalens.pairs.row import Prompt
from deltalens.storage.typed import checked_types
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.attribution import Attribution
from deltalens.study.detection.result import Detection, read_detection
from deltalens.trials.result import SweepResult
from deltalens.trials.setup.settings import read_prompts


@dataclass(frozen=True)
class About:
    """What a run's metadata say of it; pairs: their fingerprint, None in old runs."""

    model: str
    model_fingerprint: str
    sae: str
    site: str
    baseline: str
    pairs: str | None
    n_latents: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """A run of ``attribute``, and what else is in its directory; None where it is not."""

    name: str
    run: Path
    about: About
    result: Attribution
    activation: ActivationDifference | None
    sweep: SweepResult | None
    prompts: list[Prompt]
    detection: Detection | None


def gather(name: str, run: Path) -> Evidence:
    """Read a run; :class:`InputError` where anything in it is damaged."""
    result, sweep = Attribution.load(run), read_sweep(run)
    about = _about(run, result)
    return Evidence(
        name,
        run,
        about,
        result,
        activation=read_activation(run, result),
        sweep=sweep,
        prompts=[] if sweep is None else read_prompts(run),
        detection=read_detection(run),
    )


def _about(run: Path, result: Attribution) -> About:
    said = result.metadata
    try:
        prints = said["fingerprints"]
        about: About = checked_types(
            About(
                said["model"]["name"],
                prints["model"],
                prints["sae"],
                saved_name(said["options"]["site"]),
                prints["baseline"],
                prints.get("pairs"),
                said["counts"]["latents"],
                said["options"],
            )
        )
        _check(result, about)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"the run in {run} is damaged: {error!r}; run it again") from error
    return about


def _check(result: Attribution, about: About) -> None:
    if not {"ranking", "normalize"} <= about.options.keys():
        raise ValueError("options are missing")
    outside = (result.latents < 0) | (result.latents >= about.n_latents)
    scores = result.all_scores
    if bool(outside.any()) or (scores is not None and list(scores.shape) != [about.n_latents]):
        raise ValueError(f"it ranks others than {about.n_latents} latents")
