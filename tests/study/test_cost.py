"""What a study says it costs, against what runs through the model and lies on disk."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.cost.dry_run import dry_run
from deltalens.cost.total import Cost
from deltalens.study import Attribution, Baseline, attribute
from deltalens.study.running import finish
from deltalens.study.running import studies as running
from helpers.tiny_study import D_MODEL, make_model, make_pairs, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")

PAIRS, LATENTS, CHECK = 37, 60, 3
SITES = [0, 1]
W_DEC = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parts() -> Any:
    return make_model(), make_tokenizer()


def study(parts: Any, out: Path | None = None, **changes: Any) -> Any:
    options = {"site": 1, "k": 5, "check": CHECK, "run_dir": out, "sinks": None, **changes}
    several = isinstance(options["site"], list)
    decoder = [W_DEC] * len(options["site"]) if several else W_DEC
    baseline = Baseline.zero(D_MODEL)
    return attribute(*parts, make_pairs(PAIRS), decoder, baseline=baseline, **options)


def cost_of(*args: Any, **changes: Any) -> Cost:
    with dry_run() as found:
        study(*args, **changes)
    assert found.least == found.most
    return found.most


class Counter:
    """Tokens that enter a model's first block, and those whose gradient leaves its last."""

    def __init__(self, model: Any) -> None:
        self.forward = self.backward = 0
        self.handles = [
            model.model.layers[0].register_forward_pre_hook(self._enter),
            model.model.norm.register_forward_hook(self._leave),
        ]

    def _enter(self, module: Any, args: Any) -> None:
        self.forward += args[0].shape[0] * args[0].shape[1]

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        if output.requires_grad:
            output.register_hook(self._back)

    def _back(self, grad: Any) -> None:
        self.backward += grad.shape[0] * grad.shape[1]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"site": SITES},
        {"gradients": "integrated", "steps": 3},
        {"gradients": "integrated", "steps": 2, "site": SITES},
        {"check": 0},
    ],
)
def test_tokens_are_those_that_go_through_the_model(parts: Any, changes: Any) -> None:
    """A batch_tokens of 1 runs every row by itself, so that nothing is padding."""
    found = cost_of(parts, **changes)
    counter = Counter(parts[0])
    study(parts, batch_tokens=1, **changes)
    counter.remove()
    assert (found.forward, found.backward) == (counter.forward, counter.backward)
    assert counter.forward > 0
    if not changes:
        rows = sum(
            len(pair.prompt) + len(side) - 1
            for pair in make_pairs(PAIRS)
            for side in (pair.positive, pair.negative)
        )
        # With 37 pairs every second is ablated: itself and each latent.
        checked = sum(
            len(pair.prompt) + len(side) - 1
            for pair in make_pairs(PAIRS)[::2]
            for side in (pair.positive, pair.negative)
        )
        assert found.backward == rows
        assert found.forward == rows + (1 + CHECK) * checked


@pytest.mark.parametrize("flips", [0, 40])
@pytest.mark.parametrize("sinks", [True, False])
def test_bytes_are_those_on_disk(
    parts: Any, tmp_path: Path, monkeypatch: Any, flips: int, sinks: bool
) -> None:
    options = {"flips": flips, **({} if sinks else {"sinks": None})}
    if sinks:
        from deltalens.lm.sinks import SINKS

        options["sinks"] = SINKS
    found = cost_of(parts, **options)
    out, largest = tmp_path / "run", 0
    real = finish._first_order

    def looked(*args: Any) -> Any:
        nonlocal largest
        largest = sum(path.stat().st_size for path in (out / ".rows").iterdir())
        largest -= (out / ".rows" / "settings.json").stat().st_size
        return real(*args)

    monkeypatch.setattr(finish, "_first_order", looked)
    study(parts, out, **options)
    assert found.scratch == largest > 0


def test_what_is_kept_is_about_as_large_as_was_said(parts: Any, tmp_path: Path) -> None:
    found = cost_of(parts, k=50, save_scores=True)
    study(parts, tmp_path / "run", k=50, save_scores=True)
    kept = sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    assert kept / 2 < found.disk < 2 * kept


def test_a_cut_run_counts_what_is_missing(parts: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """One of three shards is there."""
    out, whole = tmp_path / "run", cost_of(parts)

    class Cut(Exception):
        pass

    real, calls = running.capture_missing, []

    def cut(studies: Any, stores: Any, *rest: Any) -> None:
        real(studies, stores, *rest)
        for path in sorted((out / ".rows").glob("*.safetensors"))[1:]:
            calls.append(path.stat().st_size)
            path.unlink()
        raise Cut

    monkeypatch.setattr(running, "capture_missing", cut)
    with pytest.raises(Cut):
        study(parts, out)
    monkeypatch.undo()
    before = listing(out)
    left = cost_of(parts, out)
    assert listing(out) == before
    rows = sum(
        len(pair.prompt) + len(side) - 1
        for pair in make_pairs(PAIRS)[16:]
        for side in (pair.positive, pair.negative)
    )
    assert left.backward == rows
    assert whole.forward - left.forward == whole.backward - left.backward
    files = 8 * D_MODEL * sum(len(pair.prompt) - 1 for pair in make_pairs(PAIRS))
    assert left.scratch == sum(calls) + files
    study(parts, out)
    assert cost_of(parts, out) == Cost()
    shutil.rmtree(out)


def listing(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


def test_a_dry_run_writes_nothing_and_says_a_rate(parts: Any, tmp_path: Path) -> None:
    with dry_run() as found:
        study(parts, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert found.rate > 0
    assert found.seconds > found.most.seconds > 0
    assert found.sentences == [f"To do: {found.most.words()}."]


def test_it_is_said_before_the_first_batch(parts: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="deltalens.study"):
        result = study(parts)
    assert isinstance(result, Attribution)
    (sentence,) = caplog.messages
    assert sentence == f"To do: {cost_of(parts).words()}."
