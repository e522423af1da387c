"""Which characters tokens stand for, against the offsets that tokenizers give themselves."""

from __future__ import annotations

import re

import pytest

from deltalens.lm.targets.spans import matching, placed
from deltalens.lm.text.completions import bare_ids
from helpers.tokenizers import TOKENIZERS

TEXTS = [
    "Sure, here is the plan: rest at 10 or 12.",
    " I would say no. Buy gold, 1999 of it!",
    "naïve café 日本語 done\n\nThe year 2024 😀😀 x",
    "日本",
]


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_spans_are_the_tokenizers_own_offsets(tokenizer, text):
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = placed(tokenizer, encoded["input_ids"])
    added = len(found.text) - len(text)  # the space some put in front
    assert added in (0, 1)
    assert found.text[added:] == text
    expected = [tuple(span) for span in encoded["offset_mapping"]]
    # What is put in front they count to the first character.
    shifted = [(max(b - added, 0), max(e - added, added)) for b, e in found.spans]
    assert shifted == expected


@pytest.mark.parametrize("part", ["old i", "199", "9", "ure", " the"])
def test_a_token_half_in_a_match_counts(tokenizer, part):
    ids = bare_ids(tokenizer, " Sure the gold is there, 1999 of it")
    text, spans = placed(tokenizer, ids)
    inside = {
        place + n
        for place in range(len(text))
        if text.startswith(part, place)
        for n in range(len(part))
    }
    expected = [not inside.isdisjoint(range(*span)) for span in spans]
    assert any(expected)
    assert matching(tokenizer, ids, re.compile(part)) == expected
