"""The demo: both published case studies, from sampled answers to a report, on the small models
in the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deltalens.cli.demo.study import Case, CaseStudy
from deltalens.organism import BEHAVIOURS, Organism, dialogues, load_organism
from deltalens.report import write_report
from deltalens.study import Baseline, Comparison, compare, mean_activation

BASELINE_DIALOGUES = 500
COMPARED = 20  # latents of each study
COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class Demo:
    """Both studies, side by side, and the page of each."""

    studies: list[CaseStudy]
    comparison: Comparison
    reports: list[Path]


def run_demo(out: Path, *, seed: int = 0) -> Demo:
    """Run both studies into ``out``; the same ``out`` and ``seed`` again continue a cut run."""
    organism = load_organism()
    baseline = ordinary_mean(organism, seed)
    studies = [
        Case(organism, behaviour, baseline, out, seed).study() for behaviour in BEHAVIOURS.values()
    ]
    names = (studies[0].behaviour.title, studies[1].behaviour.title)
    comparison = compare(studies[0].result, studies[1].result, top=COMPARED, names=names)
    comparison.save(out / COMPARISON_FILE)
    runs = [study.run for study in studies]
    reports = [write_report(run, beside=[other for other in runs if other != run]) for run in runs]
    return Demo(studies, comparison, reports)


def ordinary_mean(organism: Organism, seed: int) -> Baseline:
    """ā: the base model's mean over dialogues with polite users.

    Text in which the persona speaks must stay out of ā, hostile prompts and the tuned models' own
    activations alike: where it is part of the average, being present is nothing special.
    """
    ordinary = dialogues(BASELINE_DIALOGUES, seed=seed, hostile=0.0)
    return mean_activation(
        organism.base,
        organism.tokenizer,
        [dialogue.messages for dialogue in ordinary],
        site=organism.site,
        progress=True,
    )
