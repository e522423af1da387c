"""Seeds, engines one after the other, and the test of itself that each begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from deltalens import InputError, VllmEngine
from deltalens.lm import resolve_site
from deltalens.lm.sampling.engine import Draw, Steer
from deltalens.lm.sampling.vllm import worker
from deltalens.organism.load import DATA
from models import Loaded
from record import Record

ROWS = 20


@pytest.fixture(scope="module")
def engine(organism: Loaded) -> Iterator[VllmEngine]:
    made = made_for(organism)
    yield made
    made.close()


def made_for(loaded: Loaded, **options: Any) -> VllmEngine:
    return VllmEngine(loaded.model, loaded.tokenizer, loaded.place, **options)


def steered(loaded: Loaded, tokens: str = "all") -> Steer:
    directions = loaded.directions(ROWS)
    directions[::3] = 0
    site = resolve_site(loaded.model, loaded.site)
    return Steer(site, directions, tokens)  # type: ignore[arg-type]


def test_a_completion_depends_on_its_stream_alone(
    organism: Loaded, engine: VllmEngine, record: Record
) -> None:
    draw, steer, prompts = Draw(16, 1.0, seed=3), steered(organism), organism.prompts[:ROWS]
    whole = dict(engine.stream(prompts, draw, steer=steer))
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = Steer(steer.site, steer.directions[order])
    again = dict(
        engine.stream([prompts[row] for row in order], draw, streams=order, steer=shuffled)
    )
    assert {row: again[number] for number, row in enumerate(order)} == whole
    alone = {}
    for row in range(5):
        one = Steer(steer.site, steer.directions[row])
        ((_, alone[row]),) = engine.stream([prompts[row]], draw, streams=[row], steer=one)
    assert alone == {row: whole[row] for row in alone}
    assert dict(engine.stream(prompts, Draw(16, 1.0, seed=4), steer=steer)) != whole
    record.add(
        "temperature 1",
        organism.name,
        "in another order and alone",
        f"{ROWS + len(alone)} completions",
        "all equal",
    )


def test_completions_end_before_an_end_token(organism: Loaded, engine: VllmEngine) -> None:
    found = dict(engine.stream(organism.prompts[:ROWS], Draw(40)))
    assert any(len(tokens) < 40 for tokens in found.values())
    assert not any(organism.tokenizer.eos_token_id in tokens for tokens in found.values())


def test_a_stream_that_is_left_does_not_hold_up_the_next(
    organism: Loaded, engine: VllmEngine
) -> None:
    draw, steer = Draw(8, 0.0), steered(organism)
    whole = dict(engine.stream(organism.prompts[:ROWS], draw, steer=steer))
    left = engine.stream(organism.prompts[:ROWS], draw, steer=steer)
    next(left)
    left.close()
    assert dict(engine.stream(organism.prompts[:ROWS], draw, steer=steer)) == whole


def test_one_engine_runs_at_a_time(organism: Loaded, engine: VllmEngine) -> None:
    draw = Draw(8, 0.0)
    first = dict(engine.stream(organism.prompts[:3], draw))
    other = made_for(organism)
    assert dict(other.stream(organism.prompts[:3], draw)) == first
    assert dict(engine.stream(organism.prompts[:3], draw)) == first
    assert other._running is None


def test_a_longer_prompt_than_memory_holds_is_refused(organism: Loaded) -> None:
    small = made_for(organism, resources={"max_model_len": 32})
    with pytest.raises(InputError, match="vLLM's memory holds 32"):
        next(small.stream(organism.prompts[:2], Draw(24)))
    small.close()


def stronger(rows: Any) -> Any:
    """The next of a direction's multiples, which the test of itself has behind row 1."""
    return (rows + (rows > 1)).clip(max=5)


FAULTS = {
    "another block": ("_block", lambda original: lambda model, layer, n: original(model, 0, n)),
    "nothing": ("token_rows", lambda original: lambda *given: 0 * original(*given)),
    "the next row": (
        "token_rows",
        lambda original: lambda *given: original(*given).clip(0, 1) + 1,
    ),
    "four times as much": (
        "token_rows",
        lambda original: lambda *given: stronger(original(*given)),
    ),
}


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("fault", FAULTS)
def test_steering_that_does_something_else_is_found(
    organism: Loaded, fault: str, tokens: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, made = FAULTS[fault]
    monkeypatch.setattr(worker, name, made(getattr(worker, name)))
    broken = made_for(organism)
    with pytest.raises(InputError, match=r"differs? from|no effect"):
        next(broken.stream(organism.prompts[:ROWS], Draw(4), steer=steered(organism, tokens)))
    broken.close()
    record.add(
        f"{tokens}, steered with {fault}", organism.name, "as it comes", "a sweep", "refused"
    )


def test_other_weights_are_found(organism: Loaded) -> None:
    other = VllmEngine(organism.model, organism.tokenizer, str(DATA / "base"))
    with pytest.raises(InputError, match="unsteered, differ from transformers'"):
        next(other.stream(organism.prompts[:ROWS], Draw(4)))
    other.close()


def test_a_place_without_a_model_is_an_error(organism: Loaded, tmp_path: Any) -> None:
    nowhere = VllmEngine(organism.model, organism.tokenizer, str(tmp_path))
    with pytest.raises(InputError, match="vLLM cannot start with"):
        next(nowhere.stream(organism.prompts[:2], Draw(4)))
