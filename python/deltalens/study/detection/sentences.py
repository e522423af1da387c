"""What a detection says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from deltalens.study.detection.result import Detection, Where
from deltalens.study.detection.shown import auc_text

_WHAT: dict[Where, str] = {
    "completion": "completions with the behaviour from those without",
    "prompt": "prompts whose answers show the behaviour from those whose answers do not",
}


def detection_sentences(found: Detection) -> Iterator[str]:
    """Of how many texts, and how well the mean difference and the latents tell them apart."""
    about = found.metadata
    left_out = ""
    if about["left_out"]:
        left_out = (
            f"; {about['left_out']:,} completions to prompts of the run's own pairs are left out"
        )
    yield (
        f"Held out: {about['shown']:,} completions with the behaviour and {about['absent']:,} "
        f"without it, to {about['prompts']:,} prompts{left_out}."
    )
    for where, what in _WHAT.items():
        yield from _told_apart(found, where, what)
    if "best_by_prompt" in about:
        yield (
            "No score of the prompts alone, whatever it were, could have an AUC above "
            f"{about['best_by_prompt']:.2f} on these answers."
        )


def _told_apart(found: Detection, where: Where, what: str) -> Iterator[str]:
    means = list(found.of(where, "mean"))
    if not means:
        return
    difference, *latents = means
    differ = sum(row.differs for row in latents)
    chance = len(latents) / 20
    yield (
        f"AUC of telling {what} by the mean over tokens: {auc_text(difference)} along the mean "
        f"difference of the run's pairs; of {len(latents)} latents the intervals of {differ} leave "
        f"out ½, as those of about {chance:.{0 if chance >= 1 else 1}f} would by chance."
    )
