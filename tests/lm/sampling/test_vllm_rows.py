"""Which row of the table each token of vLLM's batches gets, against one token at a time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from deltalens.lm import resolve_site
from deltalens.lm.sampling.engine import Steer
from deltalens.lm.sampling.vllm.conditions import PLAIN, conditions, first_steered
from deltalens.lm.sampling.vllm.rows import KEY, Marked, marked, token_rows
from helpers.tiny_study import D_MODEL, SITE, make_model


def one_at_a_time(marks: list[Marked], computed: list[int], counts: list[int]) -> list[int]:
    return [
        mark.row if position >= mark.first else 0
        for mark, start, count in zip(marks, computed, counts, strict=True)
        for position in range(start, start + count)
    ]


def test_a_token_gets_its_row_by_its_position():
    draw = random.Random(0)
    for _ in range(200):
        requests = draw.randrange(1, 9)
        marks = [
            Marked(1, draw.randrange(5), draw.choice([0, draw.randrange(30)]))
            for _ in range(requests)
        ]
        computed = [draw.randrange(40) for _ in marks]
        counts = [draw.randrange(1, 20) for _ in marks]
        found = token_rows(marks, np.array(computed, dtype=np.int32), np.array(counts))
        assert found.tolist() == one_at_a_time(marks, computed, counts)


@pytest.mark.parametrize(
    "extra",
    [None, {}, {KEY: None}, {KEY: [1, 2]}, {KEY: ["a", 1, 2]}],
)
def test_a_request_that_says_nothing_is_an_error(extra: Any):
    with pytest.raises(RuntimeError, match="does not say how"):
        marked(extra, 1)


def test_a_request_of_another_table_is_an_error_unless_it_is_unsteered():
    assert marked({KEY: [3, 2, 0]}, 3) == Marked(3, 2, 0)
    assert marked({KEY: [0, 0, 0]}, 3) == Marked(0, 0, 0)
    with pytest.raises(RuntimeError, match="steered by table 2, and 3 is there"):
        marked({KEY: [2, 1, 0]}, 3)


def test_conditions_are_counted_once_and_zero_is_the_first():
    site = resolve_site(make_model(), SITE)
    a, b = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    given = torch.stack([a, 0 * a, b, -0.0 * b, a])
    found = conditions(Steer(site, given), 5)
    assert found.rows == [1, 0, 2, 0, 1]
    assert torch.equal(found.table, torch.stack([0 * a, a, b]))
    assert found.salts[0] == PLAIN
    assert len(set(found.salts)) == 3


def test_a_salt_says_what_is_added_where_and_to_which_tokens():
    model = make_model()
    row = torch.ones(1, D_MODEL)
    ways = [
        Steer(resolve_site(model, layer), times * row, tokens)
        for layer in (0, SITE)
        for times in (1, 2)
        for tokens in ("all", "generated")
    ]
    assert len({conditions(way, 1).salts[1] for way in ways}) == len(ways)
    assert conditions(ways[0], 1).salts == conditions(ways[0], 3).salts


def test_generated_tokens_begin_behind_the_prompt():
    site = resolve_site(make_model(), SITE)
    prompts = [[1, 2, 3], [1]]
    assert first_steered(Steer(site, torch.ones(D_MODEL), "generated"), prompts) == [3, 1]
    assert first_steered(Steer(site, torch.ones(D_MODEL)), prompts) == [0, 0]
