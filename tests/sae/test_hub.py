"""Hub ids without a network: from a prepared cache, and from an address where nobody answers."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, utils

from deltalens.errors import InputError
from deltalens.sae import SAE, hub, load_sae
from helpers.sae_writers import (
    MAKERS,
    sparsify_state,
    write_sparsify,
)

# Since 1.0 close_session, before that utils.reset_sessions.
forget_session = getattr(huggingface_hub, "close_session", None) or utils.reset_sessions
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def load(cache: Path, path: str, part: str | None = None, offline: bool = True) -> SAE | str:
    """The SAE, or what is said of it, with that cache and a hub that does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        patch.setattr(constants, "HF_HUB_OFFLINE", offline)
        patch.chdir(cache)
        forget_session()  # it keeps whether it may connect
        try:
            return load_sae(path, part=part)
        except InputError as error:
            message = str(error)
    assert "\n" not in message
    return message


def first_row(sae: SAE | str) -> list[float]:
    assert isinstance(sae, SAE), sae
    row: list[float] = sae.W_dec.rows(0, 1)[0].tolist()
    return row


def snapshot(cache: Path, repo: str = "org/repo") -> Path:
    """Where the cache keeps that commit of the repository."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return root / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("path", "offline"),
    [
        ("org/repo/some/layers.10", True),
        ("org/repo/some/layers.10", False),
        ("hf://org/repo/some/layers.10", True),
        ("hf://org/repo/some/layers.10@main", True),
        (f"org/repo/some/layers.10@{COMMIT}", True),
    ],
)
def test_a_cached_folder_loads(tmp_path: Path, path: str, offline: bool) -> None:
    state = sparsify_state((50, 16))
    place = write_sparsify(snapshot(tmp_path) / "some" / "layers.10", state)
    found = load(tmp_path, path, offline=offline)
    assert first_row(found) == state["W_dec"][0].tolist()
    assert isinstance(found, SAE)
    assert (found.path, found.format, found.site) == (place, "sparsify", "layers.10")


def test_a_part_of_a_cached_repository(tmp_path: Path) -> None:
    states = [sparsify_state((50, 16)) for _ in range(2)]
    for layer, state in enumerate(states):
        write_sparsify(snapshot_once(tmp_path) / f"layers.{layer}", state)
    found = load(tmp_path, "org/repo", "layers.1")
    assert first_row(found) == states[1]["W_dec"][0].tolist()
    error = load(tmp_path, "hf://org/repo", "layers.2")
    assert "no hookpoint 'layers.2'; it has layers.0, layers.1" in str(error)


def snapshot_once(cache: Path) -> Path:
    existing = cache / "models--org--repo" / "snapshots" / COMMIT
    return existing if existing.exists() else snapshot(cache)


@pytest.mark.parametrize("offline", [False, True])
def test_no_network(tmp_path: Path, offline: bool) -> None:
    error = str(load(tmp_path, "org/repo/layers.10", offline=offline))
    assert error.startswith("org/repo/layers.10: no such file or directory here, nor from the ")
    assert "there is no network" in error
    assert "hf download org/repo --include 'layers.10*' --local-dir DIR" in error
    assert len(error) < 500


def test_a_folder_that_the_cached_repository_has_not(tmp_path: Path) -> None:
    write_sparsify(snapshot(tmp_path) / "layers.10", sparsify_state((50, 16)))
    error = str(load(tmp_path, "org/repo/layers.11"))
    assert "org/repo has no layers.11 at its main revision" in error


@pytest.mark.parametrize(
    "path",
    ["nowhere", "/no/where/at/all", "./no/where", "../no/where", "hf://org", "a/../b", "~/x/y"],
)
def test_what_is_no_hub_id_is_a_missing_file(tmp_path: Path, path: str) -> None:
    assert load(tmp_path, path) == f"{path}: no such file or directory"


def test_a_local_path_goes_before_the_hub(tmp_path: Path) -> None:
    state = sparsify_state((50, 16))
    write_sparsify(tmp_path / "org" / "repo", state)
    assert first_row(load(tmp_path, "org/repo")) == state["W_dec"][0].tolist()


class FakeHub:
    """The client's pattern filter over a list of files; what would be downloaded."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def wanted(self, text: str, part: str | None = None) -> list[str]:
        from huggingface_hub.utils import filter_repo_objects

        address = hub._parse(text)
        assert address is not None
        ignored = None if address.folder or part else "*/*"
        allowed = hub._wanted(address, part)
        return sorted(
            filter_repo_objects(self.files, allow_patterns=allowed, ignore_patterns=ignored)
        )


def test_only_what_is_needed_is_downloaded() -> None:
    run = FakeHub(
        ["config.json", "README.md"]
        + [f"layers.{i}/{name}" for i in (1, 10) for name in ("cfg.json", "sae.safetensors")]
    )
    one = ["config.json", "layers.1/cfg.json", "layers.1/sae.safetensors"]
    assert run.wanted("org/repo/layers.1") == one
    assert run.wanted("org/repo", "layers.1") == one
    assert run.wanted("org/repo") == ["README.md", "config.json"]
    named = FakeHub(
        [
            f"resid_post_layer_{i}/trainer_{t}/{name}"
            for i in (3, 7)
            for t in (0, 1)
            for name in ("ae.pt", "config.json", "eval_results.json")
        ]
    )
    assert named.wanted("org/repo/resid_post_layer_3/trainer_1/ae.pt") == [
        "resid_post_layer_3/trainer_1/ae.pt",
        "resid_post_layer_3/trainer_1/config.json",
    ]
    transcoders = FakeHub(["config.yaml", *(f"layer_{i}.safetensors" for i in (1, 11))])
    assert transcoders.wanted("org/repo", "1") == ["config.yaml", "layer_1.safetensors"]
    assert transcoders.wanted("org/repo/layer_11.safetensors") == [
        "config.yaml",
        "layer_11.safetensors",
    ]
    cross = FakeHub(
        ["config.yaml", *(f"W_{kind}_{i}.safetensors" for kind in ("enc", "dec") for i in (1, 2))]
    )
    assert cross.wanted("org/repo", "2:5") == [
        "W_dec_2.safetensors",
        "W_enc_2.safetensors",
        "config.yaml",
    ]
    qwen = FakeHub(["layer0.sae.pt", "layer10.sae.pt"])
    assert qwen.wanted("Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_50", "0") == ["layer0.sae.pt"]


@pytest.mark.parametrize("made", ["circuit_tracer", "cross_layer", "qwen_scope"])
def test_a_layer_alone_is_enough_to_load(tmp_path: Path, made: str) -> None:
    maker, part = MAKERS[made]
    whole = maker(tmp_path / "sae")
    assert part is not None
    files = [path.name for path in whole.iterdir()]
    kept = FakeHub(files).wanted("org/repo", part)
    for name in set(files) - set(kept):
        (whole / name).unlink()
    assert load_sae(whole, part=part).encoding.W_enc.rows(0, 50).shape == torch.Size((50, 16))
