"""Damaged checkpoints of every format: an error of one line, or the numbers that were saved."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae import load_sae
from deltalens.sae.files import open_tensors
from helpers.sae_checks import encode
from helpers.sae_writers import MAKERS

WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")


def numbers(path: Path, part: str | None, x: Tensor) -> list[Tensor]:
    """Everything an SAE says: its rows and what it makes of ``x``."""
    sae = load_sae(path, part=part)
    rows = sae.W_dec.rows(0, sae.W_dec.n_latents)
    return [rows, *encode(sae.encoding, sae.W_dec, x)]


def numbers_or_line(path: Path, part: str | None, x: Tensor) -> list[Tensor] | None:
    """The numbers, or None for an error of one line; any other error is the test's failure."""
    try:
        return numbers(path, part, x)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return None


def weight_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix in WEIGHTS)


@pytest.mark.parametrize("made", list(MAKERS))
def test_a_truncated_file_gives_no_numbers(tmp_path: Path, made: str) -> None:
    maker, part = MAKERS[made]
    path = maker(tmp_path / "sae")
    used = 0
    for file in weight_files(path):
        content = file.read_bytes()
        sizes = {0, 1, 7, 8, 100, len(content) // 3, len(content) // 2, len(content) - 1}
        for size in sizes:
            file.write_bytes(content[:size])
            if numbers_or_line(path, part, torch.randn(3, 16)) is None:
                used += 1
            else:
                assert made == "cross_layer"
                assert re.fullmatch(r"W_enc_[02]\.safetensors", file.name)
        file.write_bytes(content)
    assert used >= 8
    numbers(path, part, torch.randn(3, 16))


def flips(file: Path) -> Iterator[bytes]:
    """The file's content with one byte of a header changed, several hundred times."""
    content = bytearray(file.read_bytes())
    places = np.flatnonzero(np.frombuffer(structure(file), dtype=np.uint8))
    rng = np.random.default_rng(0)
    for place in rng.choice(places, min(400, len(places)), replace=False):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        yield bytes(changed)


def structure(file: Path) -> bytes:
    """1 at every byte of ``file`` that is no tensor's, 0 elsewhere."""
    size = file.stat().st_size
    mask = np.zeros(size, dtype=np.uint8)
    if file.suffix == ".safetensors":
        mask[: 8 + int.from_bytes(file.read_bytes()[:8], "little")] = 1
        return mask.tobytes()
    mask[:] = 1
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            content = archive.read(member)
            start = file.read_bytes().find(content, member.header_offset)
            if "/data/" in member.filename:
                mask[start : start + len(content)] = 0
            elif file.suffix == ".npz":
                stream = io.BytesIO(content)
                version = np.lib.format.read_magic(stream)
                assert version == (1, 0)
                np.lib.format.read_array_header_1_0(stream)
                mask[start + stream.tell() : start + len(content)] = 0
    return mask.tobytes()


@pytest.mark.parametrize("made", list(MAKERS))
def test_a_flipped_byte_of_a_header_never_changes_a_number(tmp_path: Path, made: str) -> None:
    maker, part = MAKERS[made]
    path = maker(tmp_path / "sae")
    x = torch.randn(3, 16)
    expected = numbers(path, part, x)
    refusals = 0
    for file in weight_files(path):
        content = file.read_bytes()
        for changed in flips(file):
            file.write_bytes(changed)
            found = numbers_or_line(path, part, x)
            if found is None:
                refusals += 1
                continue
            assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
        file.write_bytes(content)
    assert refusals > 50


@pytest.mark.parametrize(
    ("made", "names"),
    [
        ("saelens", ["b_enc", "b_dec", "threshold"]),
        ("gemma_scope_2", ["b_enc", "b_dec", "threshold"]),
        ("sparsify", ["encoder.bias", "b_dec", "W_skip"]),
        ("llama_scope", ["encoder.bias", "decoder.bias"]),
        ("circuit_tracer", ["b_enc", "b_dec", "activation_function.threshold"]),
        ("cross_layer", ["b_enc_1", "threshold_1"]),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_bias_is_a_number_that_is_none(
    tmp_path: Path, made: str, names: list[str], value: float
) -> None:
    maker, part = MAKERS[made]
    path = maker(tmp_path / "sae")
    for name in names:
        (file,) = [file for file in weight_files(path) if name in open_tensors(file).tensors]
        state = safetensors.torch.load_file(file)
        broken = {**state, name: state[name].clone()}
        broken[name].view(-1)[3] = value
        safetensors.torch.save_file(broken, file)
        sae = load_sae(path, part=part)
        with pytest.raises(InputError, match=f"{re.escape(name)} is not finite"):
            _ = sae.encoding
        safetensors.torch.save_file(state, file)
