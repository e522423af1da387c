"""Everything a run directory holds, as far as it is there."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.examples.store import EXAMPLES_FILE, read_examples, read_summary
from deltalens.judge import Verdict
from deltalens.pairs.row import Prompt
from deltalens.sae.formats.neuronpedia import name_of_run
from deltalens.study.ablation.table import ABLATION_FILE
from deltalens.study.attribution import Attribution
from deltalens.study.detection.result import Detection, read_detection
from deltalens.study.tokens.log_probs import PairLogProbs, read_log_probs
from deltalens.trials.interpretation.interpret import Interpretation, read_interpretations
from deltalens.trials.log import Completion, Key, read_graded
from deltalens.trials.result import (
    STEERING_DIRECTORY,
    SUMMARY_FILE,
    Direction,
    SweepResult,
)
from deltalens.trials.setup.settings import read_prompts

Graded = dict[Key, tuple[Completion, Verdict]]


@dataclass(frozen=True)
class Steering:
    """A finished sweep with its prompts and graded completions."""

    result: SweepResult
    prompts: list[Prompt]
    graded: dict[Direction, Graded]


@dataclass(frozen=True)
class Evidence:
    """A run and what was added to it since; what is not there is None or empty.

    ablation: latent → (first-order, exact); examples: latent → its line of ``latents.jsonl``;
    examples_summary: what the examples were made from; names: latent → its interpretations;
    detection: how well latents tell held-out texts apart; neuronpedia: that site's name of the SAE;
    log_probs: of every pair.
    """

    run: Path
    attribution: Attribution
    steering: Steering | None
    ablation: dict[int, tuple[float, float]]
    examples: dict[int, dict[str, Any]]
    examples_summary: dict[str, Any]
    names: dict[int, list[Interpretation]]
    detection: Detection | None = None
    neuronpedia: str | None = None
    log_probs: list[PairLogProbs] | None = None

    @property
    def behaviour(self) -> str:
        """What the study calls the behaviour."""
        named = self.attribution.metadata.get("behaviour")
        return named if isinstance(named, str) and named.strip() else "the behaviour"


def gather(run: str | Path, *, neuronpedia: str | None = None) -> Evidence:
    """Read a run directory; :class:`InputError` for one that is incomplete or damaged.

    neuronpedia: the SAE's name there, where the run does not record it.
    """
    run = Path(run)
    attribution = Attribution.load(run)
    has_examples = (run / EXAMPLES_FILE).exists()
    return Evidence(
        run=run,
        attribution=attribution,
        steering=_steering(run),
        ablation=_ablation(run / ABLATION_FILE),
        examples=_examples(run) if has_examples else {},
        examples_summary=read_summary(run) if has_examples else {},
        names=read_interpretations(run),
        detection=read_detection(run),
        neuronpedia=name_of_run(attribution.metadata, neuronpedia),
        log_probs=read_log_probs(run),
    )


def _steering(run: Path) -> Steering | None:
    if not (run / STEERING_DIRECTORY / SUMMARY_FILE).exists():
        return None
    result = SweepResult.load(run)
    judge = result.settings["judge"]["id"]
    graded = {direction: read_graded(run, direction, judge) for direction in result.arms}
    return Steering(result, read_prompts(run), graded)


def _examples(run: Path) -> dict[int, dict[str, Any]]:
    return {line["latent"]: line for line in read_examples(run) if "examples" in line}


def _ablation(path: Path) -> dict[int, tuple[float, float]]:
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {int(r["latent"]): (float(r["first_order"]), float(r["exact"])) for r in rows}
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"{path} is damaged: {error}; delete it and ablate again") from error
