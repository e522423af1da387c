"""A model in several processes: blocks split over two, or laid out over two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deltalens import VllmEngine
from deltalens.lm import resolve_site
from deltalens.lm.sampling.engine import Steer
from models import Loaded
from record import Record
from test_agreement import ROWS, all_said
from truth import agreement

ALLOWED = 5e-4  # sums are split


@pytest.fixture(scope="module", params=["tensor_parallel", "pipeline_parallel"])
def split(loaded: Loaded, request: pytest.FixtureRequest) -> Iterator[tuple[str, VllmEngine]]:
    options: dict[str, Any] = {request.param: 2}
    engine = VllmEngine(loaded.model, loaded.tokenizer, loaded.place, **options)
    yield f"{request.param.replace('_', ' ')} 2", engine
    engine.close()


@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_greedy_tokens_are_those_of_transformers(
    loaded: Loaded, split: tuple[str, VllmEngine], tokens: Any, record: Record
) -> None:
    how, engine = split
    prompts, directions = loaded.prompts[:ROWS], loaded.directions(ROWS)
    directions[::4] = 0
    steer = Steer(resolve_site(loaded.model, loaded.site), directions, tokens)
    said = all_said(engine, prompts, steer)
    found = agreement(loaded.model, loaded.site, prompts, said, directions, tokens)
    assert found.equal == found.tokens
    assert found.apart < ALLOWED
    record.add(
        f"{tokens}, mixed",
        loaded.name,
        how,
        f"{found.tokens} tokens",
        f"{found.equal} equal, log-probabilities within {found.apart:.1e}",
    )
