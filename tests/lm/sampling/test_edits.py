"""Sampling under edits that are no additions, against passes without a cache and hooks of one's
own, a row at a time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import resolve_site, sample
from deltalens.lm.points.edits import Additions, editing
from deltalens.lm.sampling.engine import Draw, Intervene, Transformers
from helpers.block_families import build_any, changed_by_hand, points_of
from helpers.families import WIDTH, token_ids
from helpers.recurrent import build_recurrent

SITE, STEPS = 1, 5
LENGTHS = [3, 12, 7, 1, 9]
GAINS = torch.tensor([0.0, 0.7, -1.5])
FAMILIES = ["llama", "gemma2", "gemma3", "gpt2", "gpt-neox", "granite", "falcon"]


class Bends:
    """Edit r adds ``GAINS[r]`` times the positive part: each position by itself, not linear."""

    def __len__(self) -> int:
        return len(GAINS)

    def edited(self, hidden: Tensor, numbers: Tensor) -> Tensor:
        gains = GAINS[numbers].to(hidden)[:, None, None]
        return hidden + gains * hidden.relu()


def crossed() -> tuple[list[list[int]], list[int]]:
    prompts = [token_ids(length, number) for number, length in enumerate(LENGTHS)]
    rows = [(prompt, edit) for prompt in prompts for edit in range(len(GAINS))] * 2
    random.Random(0).shuffle(rows)
    return [prompt for prompt, _ in rows], [edit for _, edit in rows]


@torch.no_grad()
def by_hand(model: Any, family: str, kind: str, prompt: list[int], edit: int, start: int) -> Any:
    ids = list(prompt)

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        flat = value.reshape(len(ids), -1)
        flat[start:] += GAINS[edit].to(value) * flat[start:].relu()
        return value

    for _ in range(STEPS):
        with changed_by_hand(model, family, kind, SITE, change):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_slots_are_what_they_are_alone(family: str, tokens: Any) -> None:
    model = build_any(family)
    model.generation_config.eos_token_id = None
    prompts, conditions = crossed()
    kind = random.Random(family).choice(points_of(family))
    differing = 0
    for point in {kind, "hook_resid_post"}:
        found = sample(
            model, None, prompts, max_new_tokens=STEPS, temperature=0,
            site=f"blocks.{SITE}.{point}", edits=Bends(), conditions=conditions,
            steer_tokens=tokens, batch_tokens=330,
        )  # fmt: skip
        for row in range(0, len(prompts), 3):
            start = 0 if tokens == "all" else len(prompts[row])
            given = prompts[row], conditions[row], start
            assert found[row] == by_hand(model, family, point, *given)
            differing += found[row] != by_hand(model, family, point, prompts[row], 0, 0)
    assert differing


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_a_model_with_a_state_is_edited_in_each_pass(tokens: Any) -> None:
    model = build_recurrent("Mamba")
    model.generation_config.eos_token_id = None
    prompts, conditions = crossed()
    options: Any = {"max_new_tokens": 4, "temperature": 0, "site": SITE, "steer_tokens": tokens}
    found = sample(model, None, prompts, edits=Bends(), conditions=conditions, **options)
    plain = sample(model, None, prompts, max_new_tokens=4, temperature=0)
    for row in range(0, len(prompts), 4):
        prompt, edit = prompts[row], conditions[row]
        ids = list(prompt)
        for _ in range(4):
            numbers, start = torch.tensor([edit]), 0 if tokens == "all" else len(prompt)
            with torch.no_grad(), editing(resolve_site(model, SITE), Bends(), numbers, start):
                logits = model(torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
        assert found[row] == ids[len(prompt) :]
        assert (found[row] == plain[row]) or edit
    assert found != plain


def test_drawn_rows_do_not_depend_on_their_batch() -> None:
    model = build_any("llama", torch.float32)
    prompts, conditions = crossed()
    options: Any = {"max_new_tokens": 6, "seed": 3, "site": SITE, "edits": Bends()}
    found = sample(model, None, prompts, conditions=conditions, batch_tokens=200, **options)
    for row in range(0, len(prompts), 4):
        (alone,) = sample(
            model, None, [prompts[row]], conditions=[conditions[row]], streams=[row], **options
        )
        assert found[row] == alone


def test_additions_are_directions_to_the_last_bit() -> None:
    model = build_any("llama", torch.float32)
    engine = Transformers(model, None)
    prompts, conditions = crossed()
    added = torch.randn(len(GAINS), WIDTH, generator=torch.Generator().manual_seed(1))
    site = resolve_site(model, SITE)
    steer = Intervene(site, Additions(added), conditions, "generated")
    found = dict(engine.stream(prompts, Draw(6, 1.0, 5), steer=steer))
    expected = sample(
        model, None, prompts, max_new_tokens=6, seed=5, site=SITE, directions=added[conditions],
        strengths=1.0, steer_tokens="generated",
    )  # fmt: skip
    assert [found[row] for row in range(len(prompts))] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": None}, "one is missing"),
        ({"site": None}, "one is missing"),
        ({"directions": torch.zeros(WIDTH), "strengths": 1.0}, "one is missing"),
        ({"conditions": [0]}, "1 numbers for 2 prompts"),
        ({"conditions": [0, 3]}, "edit 3 does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    given: Any = {"site": SITE, "edits": Bends(), "conditions": [0, 1], **changes}
    with pytest.raises(InputError, match=message):
        sample(build_any("llama"), None, [[1], [1, 5]], max_new_tokens=2, **given)


def test_another_number_of_rows_is_refused() -> None:
    model = build_any("llama")
    numbers = torch.tensor([0, 1])
    with (
        pytest.raises(InputError, match="edits are for 2 rows, the batch has 1"),
        editing(resolve_site(model, SITE), Bends(), numbers),
    ):
        model(torch.tensor([[1, 5]]))
