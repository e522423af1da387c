"""Configurations whose entries are of other types than the format's: an error that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.sae import load_sae
from helpers.sae_writers import MAKERS

DEEP: Any = "x"
for _ in range(40):
    DEEP = [DEEP] * 2 if _ < 5 else [DEEP]
VALUES: tuple[Any, ...] = (5, -1, 1e300, 10**400, True, [1], {"a": 1}, [], "", None, DEEP, "false")


def entries(document: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(document, dict):
        return [place]
    return [place, *(at for key, value in document.items() for at in entries(value, (*place, key)))]


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    return {**document, place[0]: changed(document[place[0]], place[1:], value)}


def configurations(path: Path) -> list[Path]:
    return [] if path.is_file() else sorted(path.rglob("*.json"))


@pytest.mark.parametrize("made", list(MAKERS))
def test_every_entry_of_every_type(tmp_path: Path, made: str) -> None:
    maker, part = MAKERS[made]
    path = maker(tmp_path / "sae")
    for file in configurations(path):
        original = json.loads(file.read_text())
        for place in entries(original):
            for value in VALUES:
                file.write_text(json.dumps(changed(original, place, value)))
                try:
                    sae = load_sae(path, part=part)
                    assert sae.site is None or isinstance(sae.site, str)
                    assert sae.model_name is None or isinstance(sae.model_name, str)
                    assert sae.encoder().encode(torch.randn(2, 16)).isfinite().all()
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    assert len(str(error)) < 1000  # noqa: PT017
        file.write_text(json.dumps(original))


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("hook_name", 5, "hook_name is 5; expected text"),
        ("normalize_activations", [1], r"normalize_activations = \[1\]"),
        ("apply_b_dec_to_input", "false", "apply_b_dec_to_input is 'false'; expected true or"),
        ("apply_b_dec_to_input", 1, "apply_b_dec_to_input is 1; expected true or false"),
    ],
)
def test_of_saelens(tmp_path: Path, entry: str, value: Any, said: str) -> None:
    maker, _ = MAKERS["saelens"]
    path = maker(tmp_path / "sae")
    config = json.loads((path / "cfg.json").read_text())
    config.pop("metadata", None)
    (path / "cfg.json").write_text(json.dumps({**config, entry: value}))
    with pytest.raises(InputError, match=said):
        _ = load_sae(path).encoding
