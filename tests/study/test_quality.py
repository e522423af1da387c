"""Sentences on what a run's numbers rest on."""

from __future__ import annotations

from deltalens.study.quality import quality_sentences

SINKS = {"first": 12, "massive": 3, "tokens": 5190, "median": 171.25, "limit": 1712.5}
CHECK = {"latents": 8, "pairs": 32, "correlation_entries": 0.914, "slope": 1.02, "undefined": None}
TOKEN = {"position": None, "token": "\n", "norm": 0.91, "latents": [4, 5, 6]}


def test_each_thing_recorded_is_a_sentence():
    found = list(
        quality_sentences({"sinks": SINKS, "first_order": CHECK, "dominant_tokens": [TOKEN]})
    )
    assert found == [
        "Of 5,190 prompt tokens 12 first ones and 3 with norms above 1712 (median 171.2) were left "
        "out as attention sinks.",
        "Held against exact ablation of the first 8 latents over 32 pairs, first order has a "
        "correlation of 0.91 and a slope of 1.02.",
        "The prompts' token “↵” (0.91 times the median norm) carries more than half of the score "
        "of 3 latents.",
    ]


def test_what_could_not_be_checked_says_why():
    failed = {"latents": 8, "pairs": 1, "undefined": "out of memory"}
    place = {"position": 0, "token": None, "norm": 146.0, "latents": [1]}
    found = list(quality_sentences({"first_order": failed, "dominant_tokens": [place]}))
    assert found[0] == "First order was not held against ablation: out of memory."
    assert "token at position 0 (1.5e+02 times" in found[1]


def test_kept_sinks_and_earlier_runs_say_nothing():
    kept = {**SINKS, "median": None, "limit": None}
    assert list(quality_sentences({"sinks": kept, "first_order": None})) == []
    assert list(quality_sentences({})) == []
