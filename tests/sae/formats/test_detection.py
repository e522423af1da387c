"""Which format a checkpoint is in, and what is said of those that are in none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deltalens.errors import InputError
from deltalens.sae import SAE, load_sae
from deltalens.sae.encoder import Encoder
from helpers.sae_checks import (
    close,
    encode,
    refused,
)
from helpers.sae_writers import MAKERS

FORMATS = [name for name in MAKERS if name != "cross_layer"]


@pytest.mark.parametrize("made", list(MAKERS))
def test_the_files_tell_the_format(tmp_path: Path, made: str) -> None:
    maker, part = MAKERS[made]
    path = maker(tmp_path / "sae")
    sae = load_sae(path, part=part)
    assert sae.format == ("circuit_tracer" if made == "cross_layer" else made)
    assert (sae.W_dec.n_latents, sae.W_dec.d_model) == (50, 16)
    x = torch.randn(20, 16)
    z, reconstruction = encode(sae.encoding, sae.W_dec, x)
    assert (z.shape, reconstruction.shape) == ((20, 50), (20, 16))
    assert 0 < (z > 0).double().mean() < 0.7
    encoder = Encoder(sae.encoding, sae.W_dec)
    assert close(encoder.encode(x), z)
    assert close(encoder.reconstruct(x), reconstruction)
    assert sae.encoding is sae.encoding
    assert sae.part == part
    assert sae.fingerprint.endswith(f":{part}") == (part is not None)


@pytest.mark.parametrize("made", FORMATS)
@pytest.mark.parametrize("asked", FORMATS)
def test_an_explicit_format_is_honoured_or_refused(tmp_path: Path, made: str, asked: str) -> None:
    maker, _ = MAKERS[made]
    path = maker(tmp_path / "sae")
    if made == asked:
        assert load_sae(path, format=asked).format == made
        return
    message = refused(path, format=asked)
    assert f"is not a {asked} checkpoint" in message
    assert " missing, found " in message


@pytest.mark.parametrize("made", ["saelens", "gemma_scope", "llama_scope", "openai", "goodfire"])
def test_a_part_is_for_checkpoints_that_have_parts(tmp_path: Path, made: str) -> None:
    path = MAKERS[made][0](tmp_path / "sae")
    assert f"part='3', but a {made} checkpoint holds one SAE" in refused(path, part=3)


def test_an_explicit_format_reads_files_of_any_name(tmp_path: Path) -> None:
    directory = MAKERS["gemma_scope"][0](tmp_path / "sae")
    renamed = shutil.move(directory / "params.npz", tmp_path / "layer12.npz")
    assert load_sae(renamed, format="gemma_scope").format == "gemma_scope"
    assert load_sae(renamed).format == "bare"


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown SAE format 'gguf'; known formats: dict"):
        load_sae(tmp_path, format="gguf")


def test_tensor_belongs_to_bare_files(tmp_path: Path) -> None:
    path = MAKERS["saelens"][0](tmp_path / "sae")
    with pytest.raises(InputError, match="tensor='W_dec' names a tensor of a bare file"):
        load_sae(path, format="saelens", tensor="W_dec")


def test_a_missing_path(tmp_path: Path) -> None:
    assert "no such file or directory" in refused(tmp_path / "nowhere")


def test_an_unknown_layout_tells_what_was_found_and_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "hyperparams.json").write_text("{}")
    np.savez(tmp_path / "w.npz", **{"encoder.weight": np.zeros((5, 2))})
    (tmp_path / "x.pt").write_bytes(b"?")
    message = refused(tmp_path)
    found = "checkpoints/, hyperparams.json, w.npz with encoder.weight [5, 2], x.pt (unreadable)"
    assert f"found {found}; tried dictionary_learning, gemma_scope, " in message
    assert message.endswith(", bare")


def test_an_empty_directory_and_a_file_of_another_kind(tmp_path: Path) -> None:
    assert "found an empty directory" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "found notes.txt; tried " in refused(tmp_path / "notes.txt")


def test_saelens_weights_without_configuration(tmp_path: Path) -> None:
    directory = MAKERS["saelens"][0](tmp_path / "sae")
    (directory / "cfg.json").unlink()
    assert "no known SAE format: found sae_weights.safetensors with" in refused(directory)


def test_an_absent_tensor_is_an_error_naming_those_there_are(tmp_path: Path) -> None:
    sae = load_sae(MAKERS["dictionary_learning"][0](tmp_path / "sae"))
    with pytest.raises(InputError, match=r"no tensor 'W_enc'; it has encoder\.weight \[50, 16\]"):
        sae.tensor("W_enc")


def test_an_sae_is_frozen_and_prints_short(tmp_path: Path) -> None:
    sae = load_sae(MAKERS["saelens"][0](tmp_path / "sae"))
    assert isinstance(sae, SAE)
    with pytest.raises(AttributeError):
        sae.site = "elsewhere"  # type: ignore[misc]
    assert "tensor(" not in repr(sae)
