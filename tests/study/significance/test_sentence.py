"""The sentence on a study's test."""

from __future__ import annotations

import pytest

from deltalens.study.quality import significance_sentence
from deltalens.study.significance.sentence import stands_out_sentence

RECORD = {
    "flips": 1000, "pairs": 80, "latents": 2048, "ranked": 100, "exact": False, "stand_out": 12,
    "stand_out_of_all": 12, "smallest": 0.001, "smallest_possible": 1 / 1001, "counted_to": 1000,
}  # fmt: skip
FAMILY = "over all 2,048 latents, 1,000 sign flips of 80 pairs)"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, f"12 of 100 ranked latents stand out (family-wise p ≤ 0.05 {FAMILY}."),
        (
            {"stand_out": 1, "stand_out_of_all": 15},
            f"1 of 100 ranked latents stands out (family-wise p ≤ 0.05 {FAMILY}; "
            "of all latents 15 do.",
        ),
        (
            {"stand_out_of_all": 1000},
            f"12 of 100 ranked latents stand out (family-wise p ≤ 0.05 {FAMILY}; "
            "of all latents 1,000 or more do.",
        ),
        (
            {"stand_out": 0, "stand_out_of_all": 0, "smallest": 0.314},
            f"No latent stands out (smallest family-wise p 0.31 {FAMILY}: "
            "this ranking is what chance gives.",
        ),
        (
            {"stand_out": 0, "stand_out_of_all": 2, "smallest": 0.314},
            f"No ranked latent stands out (smallest family-wise p 0.31 {FAMILY}, "
            "but 2 outside the ranking do: raise k.",
        ),
        (
            {"flips": 8, "pairs": 3, "exact": True, "smallest_possible": 1 / 8},
            "With 3 pairs no latent can stand out: the smallest possible family-wise p is 0.12 "
            "(over all 2,048 latents, all 8 sign flips of 3 pairs).",
        ),
        ({"flips": 0}, "Whether any latent stands out from chance was not tested (0 sign flips)."),
        (
            {"flips": 0, "pairs": 1},
            "Whether any latent stands out from chance cannot be told from a single pair.",
        ),
    ],
)
def test_every_outcome_has_its_sentence(changes, sentence):
    assert stands_out_sentence({**RECORD, **changes}) == sentence


def test_earlier_runs_say_nothing():
    assert list(significance_sentence({})) == []
    assert list(significance_sentence({"significance": {"sentence": "so"}})) == ["so"]
