"""Choosing one SAE of several from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from deltalens.cli.arguments import add_sae
from deltalens.cli.loading import load_sae
from deltalens.cli.main import main
from helpers.sae_writers import (
    sparsify_state,
    transcoder_state,
    write_sparsify,
    write_transcoders,
)


def loaded_width(*command: str) -> tuple[int, int]:
    parser = argparse.ArgumentParser()
    add_sae(parser)
    W_dec = load_sae(parser.parse_args(command)).W_dec
    return W_dec.n_latents, W_dec.d_model


def test_a_hookpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shape in (("layers.1", (50, 16)), ("layers.2", (70, 24))):
        write_sparsify(tmp_path / "run" / name, sparsify_state(shape))
    root = str(tmp_path / "run")
    assert loaded_width("--sae", root, "--sae-part", "layers.2") == (70, 24)
    assert main(["plan", "--tokens", "9", "--sae", root]) != 0
    error = capsys.readouterr().err
    assert "which hookpoint? Choose one with part=; it has layers.1, layers.2" in error
    assert len(error.strip().splitlines()) == 1


def test_a_layer(tmp_path: Path) -> None:
    states = {layer: transcoder_state((50 + layer, 16)) for layer in range(3)}
    root = str(write_transcoders(tmp_path / "set", states))
    assert loaded_width("--sae", root, "--sae-part", "2") == (52, 16)
