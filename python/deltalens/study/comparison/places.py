"""Where any latent stands in a study's ranking, listed or not."""

from __future__ import annotations

from torch import Tensor

from deltalens.study.attribution import Attribution


def rank_in(run: Attribution, latent: int) -> int | None:
    """Rank from 1: in the list, else among all scores where they were kept."""
    listed = run.latents.tolist()
    if latent in listed:
        return listed.index(latent) + 1
    if run.all_scores is None or run.metadata["options"].get("present_only"):
        return None
    merits = merit(run)
    better = int((merits > merits[latent]).sum())
    return better + int((merits[:latent] == merits[latent]).sum()) + 1


def merit(run: Attribution) -> Tensor:
    """All scores such that the latent ranked first has the largest."""
    assert run.all_scores is not None
    ranking = run.metadata["options"]["ranking"]
    if ranking == "abs":
        return run.all_scores.abs()
    return -run.all_scores if ranking == "bottom" else run.all_scores
