"""vLLM as an engine, with transformers in the place of vLLM's workers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import deltalens
from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.lm.points.edits import Additions, editing
from deltalens.lm.sampling.engine import Draw, Intervene, Steer, Transformers
from deltalens.lm.sampling.vllm import engine as vllm_engine
from deltalens.lm.sampling.vllm import selftest
from deltalens.lm.sampling.vllm.running import Request, Said
from helpers.adapters import KINDS, adapted
from helpers.tiny_study import D_MODEL, SITE, make_model, make_tokenizer

PROMPTS = [[1, 7, 9], [1, 8, 8, 8, 10], [1, 7, 9], [1, 30]]
GREEDY = Draw(6, 0.0)
ROWS = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(0))


class Simulated:
    """Greedy tokens of a model, steered as :class:`Running` is asked to, faultily if at all."""

    model: Any
    wrong: Any = staticmethod(lambda added: added)
    started = 0

    def __init__(self, place: str, arguments: Mapping[str, Any]) -> None:
        Simulated.started += 1
        self.context, self.table = 64, torch.zeros(1, D_MODEL)
        self.site: Any = None

    def steer(self, site: Any, table: Tensor) -> int:
        self.site, self.table = site, table
        return 1

    def complete(
        self, requests: Iterable[Request], draw: Draw, stops: Sequence[int], logprobs: Any = None
    ) -> Iterator[tuple[int, Said]]:
        for number, request in reversed(list(enumerate(requests))):
            tokens: list[int] = []
            steps = []
            for _ in range(draw.max_new_tokens):
                said = self._next(request, tokens)
                tokens.append(int(said.argmax()))
                steps.append({token: float(said[token]) for token in said.topk(5)[1].tolist()})
                if tokens[-1] in stops:
                    break
            yield number, Said(tokens, steps if logprobs else [])

    def _next(self, request: Request, tokens: list[int]) -> Tensor:
        added = self.table[request.mark.row]
        added = self.wrong(added) if request.mark.row else added
        one = Additions(added[None]), torch.tensor([0]), request.mark.first
        steered = editing(self.site, *one) if self.site else nullcontext()
        with torch.no_grad(), steered:
            logits = self.model(input_ids=torch.tensor([request.prompt + tokens])).logits
        return logits[0, -1].log_softmax(-1)

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> deltalens.VllmEngine:
    monkeypatch.setattr(vllm_engine, "engine_name", lambda: "vllm 0.0")
    monkeypatch.setattr(vllm_engine, "Running", Simulated)
    monkeypatch.setattr(vllm_engine.VllmEngine, "_started", None)
    monkeypatch.setattr(Simulated, "started", 0)
    model = make_model()
    monkeypatch.setattr(Simulated, "model", model, raising=False)
    return deltalens.VllmEngine(model, make_tokenizer(), "somewhere")


def steered(engine: Any, tokens: Any = "all", rows: Tensor = ROWS) -> Steer:
    return Steer(resolve_site(engine._model, SITE), rows, tokens)


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_requests_say_what_the_sampler_is_told(engine: Any, tokens: str) -> None:
    rows = ROWS.clone()
    rows[1] = 0
    steer = steered(engine, tokens, rows)
    found = dict(engine.stream(PROMPTS, GREEDY, steer=steer))
    sampler = Transformers(engine._model, make_tokenizer())
    assert found == dict(sampler.stream(PROMPTS, GREEDY, steer=steer))
    plain = dict(engine.stream(PROMPTS, GREEDY))
    assert plain == dict(sampler.stream(PROMPTS, GREEDY))
    assert plain != found
    assert Simulated.started == 1


def test_one_direction_may_be_for_all(engine: Any) -> None:
    one = dict(engine.stream(PROMPTS, GREEDY, steer=steered(engine, rows=ROWS[0])))
    rows = ROWS[:1].expand(4, -1)
    assert one == dict(engine.stream(PROMPTS, GREEDY, steer=steered(engine, rows=rows)))


def test_nothing_to_draw_starts_nothing(engine: Any) -> None:
    assert list(engine.stream([], GREEDY)) == []
    engine.stream(PROMPTS, GREEDY, steer=steered(engine))
    assert Simulated.started == 0


def test_another_engine_takes_its_place(engine: Any) -> None:
    first = dict(engine.stream(PROMPTS, GREEDY))
    other = deltalens.VllmEngine(engine._model, make_tokenizer(), "elsewhere")
    assert dict(other.stream(PROMPTS, GREEDY)) == first
    assert engine._running is None
    assert dict(engine.stream(PROMPTS, GREEDY)) == first
    assert Simulated.started == 3


FAULTS = {
    "no effect": lambda added: 0 * added,
    "steered with zeros, it differs": lambda added: added + 1,
    "1 ×, differ from transformers'": lambda added: added * 1.5,
    "steered at blocks.1.hook_resid_post": lambda added: added.flip(0),
}


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("said", FAULTS)
def test_steering_that_does_something_else_is_refused(
    engine: Any, said: str, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Simulated, "wrong", staticmethod(FAULTS[said]))
    with pytest.raises(InputError, match=r"no effect|differs? from") as caught:
        next(engine.stream(PROMPTS, GREEDY, steer=steered(engine, tokens)))
    if said != "no effect":  # which is a difference from transformers, too
        assert said in str(caught.value)


def test_a_weak_direction_is_strengthened_until_it_is_seen(engine: Any) -> None:
    dict(engine.stream(PROMPTS, GREEDY, steer=steered(engine, rows=0.02 * ROWS)))
    weakest = steered(engine, "generated", 1e-9 * ROWS)
    with pytest.raises(InputError, match="steering has no effect"):
        next(engine.stream(PROMPTS, GREEDY, steer=weakest))


def test_other_weights_are_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulated, "model", make_model(seed=1))
    with pytest.raises(InputError, match="unsteered, differ from transformers'"):
        next(engine.stream(PROMPTS, GREEDY))


def test_without_memory_for_transformers_vllm_is_held_against_itself(
    engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(selftest, "frozen", full)
        assert dict(engine.stream(PROMPTS, GREEDY, steer=steered(engine)))
        assert "held against itself alone" in caplog.text
        patch.setattr(Simulated, "wrong", staticmethod(FAULTS["no effect"]))
        with pytest.raises(InputError, match="no effect"):
            next(engine.stream(PROMPTS, GREEDY, steer=steered(engine, "generated")))


@pytest.mark.parametrize(
    ("draw", "site", "message"),
    [
        (Draw(4, 0.001), SITE, "temperature 0 or from 0.01 on, got 0.001"),
        (Draw(80), SITE, "the model's context is 64"),
        (Draw(4), f"blocks.{SITE}.hook_mlp_out", "steers at blocks' outputs, and the site is bl"),
        (Draw(4), "blocks.0.hook_resid_pre", "steers at blocks' outputs"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_the_call(
    engine: Any, draw: Draw, site: Any, message: str
) -> None:
    steer = Steer(resolve_site(engine._model, site), ROWS)
    with pytest.raises(InputError, match=message):
        engine.stream(PROMPTS, draw, steer=steer)


def test_other_interventions_are_refused_by_the_call(engine: Any) -> None:
    site = resolve_site(engine._model, SITE)
    steer = Intervene(site, Additions(ROWS), [0, 1, 0, 1])
    with pytest.raises(InputError, match="adds directions and makes no other interventions"):
        engine.stream(PROMPTS, GREEDY, steer=steer)


def test_directions_are_one_for_each_prompt_or_one(engine: Any) -> None:
    with pytest.raises(InputError, match="3 rows for 4 prompts"):
        engine.stream(PROMPTS, GREEDY, steer=steered(engine, rows=ROWS[:3]))


def test_resources_say_what_is_used_and_nothing_else(engine: Any) -> None:
    model = engine._model
    with pytest.raises(InputError, match="dtype, speculative_config is not for you to choose"):
        deltalens.VllmEngine(
            model, None, "somewhere", resources={"dtype": "half", "speculative_config": {}}
        )
    made = deltalens.VllmEngine(
        model, None, "somewhere", tensor_parallel=2, resources={"max_num_seqs": 3}
    )
    assert made._arguments == {
        "max_model_len": -1,
        "max_num_seqs": 3,
        "dtype": "float32",
        "revision": None,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
    }


def test_adapters_are_refused(engine: Any) -> None:
    model = adapted(make_model(), KINDS["lora"]())
    with pytest.raises(InputError, match="has the adapter default: merge it"):
        deltalens.VllmEngine(model, None, "somewhere")


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.30.0", None), ("0.3.0", "steering was held"), ("0.31.2", "on 0.30: install")],
)
def test_only_tested_versions_are_taken(
    version: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ModuleType("vllm")
    found.__version__ = version  # type: ignore[attr-defined]
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(device_type="cpu")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", found)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    if message is None:
        made = deltalens.VllmEngine(make_model(), None, "somewhere")
        assert made.name == "vllm 0.30.0 (V1 runner, cpu)"
        return
    with pytest.raises(InputError, match=message):
        deltalens.VllmEngine(make_model(), None, "somewhere")


def test_vllm_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    with pytest.raises(InputError, match=r"needs vLLM 0\.30: install it beside deltalens"):
        deltalens.VllmEngine(make_model(), None, "somewhere")
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(InputError, match="VLLM_USE_V2_MODEL_RUNNER=1 asks for a runner"):
        deltalens.VllmEngine(make_model(), None, "somewhere")
