"""Checkpoints of the form their projects write, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, as_decoder, tiles
from deltalens.errors import InputError
from deltalens.sae import SAE, load_sae

# latents × width: ordinary, near-square both ways, square, single
SHAPES = [(1000, 32), (97, 96), (96, 97), (64, 64), (1, 5)]


def weights(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    F, d = shape
    return {
        "W_enc": torch.randn(d, F).to(dtype),
        "b_enc": torch.randn(F).to(dtype),
        "W_dec": torch.randn(F, d).to(dtype),
        "b_dec": torch.randn(d).to(dtype),
    }


def write_saelens(directory: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    directory.mkdir(parents=True)
    safetensors.torch.save_file(tensors, directory / "sae_weights.safetensors")
    d_sae, d_in = tensors["W_dec"].shape
    config = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {
            "sae_lens_version": "6.22.1",
            "model_name": "gpt2-small",
            "hook_name": "blocks.8.hook_resid_post",
        },
        **changes,
    }
    (directory / "cfg.json").write_text(json.dumps(config))
    return directory


def write_gemma_scope(directory: Path, tensors: dict[str, Tensor]) -> Path:
    directory.mkdir(parents=True)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(directory / "params.npz", **arrays)
    return directory


def write_dictionary_learning(
    directory: Path, state: dict[str, Tensor], shape: tuple[int, int], **changes: Any
) -> Path:
    directory.mkdir(parents=True)
    torch.save(state, directory / "ae.pt")
    trainer = {
        "dict_class": "BatchTopKSAE",
        "activation_dim": shape[1],
        "dict_size": shape[0],
        "k": 64,
        "layer": 15,
        "lm_name": "meta-llama/Llama-3.1-8B-Instruct",
        "submodule_name": "resid_post_layer_15",
        **changes,
    }
    config = {"trainer": trainer, "buffer": {"ctx_len": 2048}}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def batch_topk_state(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    F, d = shape
    return {
        "encoder.weight": torch.randn(F, d).to(dtype),
        "encoder.bias": torch.randn(F).to(dtype),
        "decoder.weight": torch.randn(d, F).to(dtype),
        "b_dec": torch.randn(d).to(dtype),
        "k": torch.tensor(64),
        "threshold": torch.tensor(0.25),
    }


def check_rows(W_dec: Decoder, expected: Tensor) -> None:
    assert as_decoder(W_dec) is W_dec
    assert (W_dec.n_latents, W_dec.d_model) == tuple(expected.shape)
    assert W_dec.dtype == expected.dtype
    read = torch.cat([rows for _, rows in tiles(W_dec, 37)])
    assert torch.equal(read, expected)
    assert W_dec.rows(0, 1).is_contiguous()


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load_sae(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


class TestSAELens:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_rows(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        tensors = weights(shape)
        sae = load_sae(write_saelens(tmp_path / "sae", tensors))
        assert (sae.format, sae.path) == ("saelens", tmp_path / "sae")
        check_rows(sae.W_dec, tensors["W_dec"])
        for name, tensor in tensors.items():
            assert torch.equal(sae.tensor(name), tensor)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensors = weights((50, 16), dtype)
        sae = load_sae(write_saelens(tmp_path / "sae", tensors))
        check_rows(sae.W_dec, tensors["W_dec"])

    def test_the_weight_file_stands_for_its_directory(self, tmp_path: Path) -> None:
        directory = write_saelens(tmp_path / "sae", weights((50, 16)))
        sae = load_sae(str(directory / "sae_weights.safetensors"))
        assert sae.format == "saelens"
        assert sae.site == "blocks.8.hook_resid_post"

    @pytest.mark.parametrize(
        ("changes", "site", "model_name"),
        [
            ({}, "blocks.8.hook_resid_post", "gpt2-small"),
            (
                {"metadata": {}, "hook_name": "blocks.3.hook_resid_pre", "model_name": "pythia"},
                "blocks.3.hook_resid_pre",
                "pythia",
            ),
            (
                {"metadata": None, "hook_point": "blocks.{layer}.hook_mlp_out", "hook_layer": 7},
                "blocks.7.hook_mlp_out",
                None,
            ),
            (
                {"metadata": {}, "hook_point": "blocks.5.hook_resid_post", "hook_point_layer": 5},
                "blocks.5.hook_resid_post",
                None,
            ),
            ({"metadata": {}}, None, None),
        ],
    )
    def test_site_and_model_now_and_before_version_6(
        self, tmp_path: Path, changes: dict[str, Any], site: str | None, model_name: str | None
    ) -> None:
        sae = load_sae(write_saelens(tmp_path / "sae", weights((50, 16)), **changes))
        assert (sae.site, sae.model_name) == (site, model_name)
        assert sae.metadata["architecture"] == "jumprelu"

    def test_a_transcoder_is_described_by_its_output(self, tmp_path: Path) -> None:
        metadata = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.out"}
        changes = {"d_in": 8, "d_out": 16, "metadata": metadata}
        sae = load_sae(write_saelens(tmp_path / "sae", weights((50, 16)), **changes))
        assert sae.site == "blocks.1.out"
        assert sae.W_dec.d_model == 16

    @pytest.mark.parametrize("changes", [{"d_in": 50, "d_sae": 16}, {"d_sae": 51}, {"d_in": 15}])
    def test_sizes_other_than_configured(self, tmp_path: Path, changes: dict[str, int]) -> None:
        directory = write_saelens(tmp_path / "sae", weights((50, 16)), **changes)
        message = refused(directory)
        assert "W_dec [latents, width] is [50, 16], which contradicts d_sae = " in message

    def test_damaged_configuration(self, tmp_path: Path) -> None:
        directory = write_saelens(tmp_path / "sae", weights((50, 16)))
        (directory / "cfg.json").write_text('{"d_in": ')
        assert "cfg.json: not valid JSON" in refused(directory)
        (directory / "cfg.json").write_text("[1]")
        assert "cfg.json: a JSON list, expected an object" in refused(directory)
        (directory / "cfg.json").write_bytes(b"\xff\xfe\x00")
        assert "cfg.json: not valid JSON" in refused(directory)

    def test_without_a_decoder(self, tmp_path: Path) -> None:
        directory = write_saelens(tmp_path / "sae", weights((50, 16)))
        safetensors.numpy.save_file(
            {"W_enc": np.zeros((16, 50))}, directory / "sae_weights.safetensors"
        )
        assert "no tensor 'W_dec'; it has W_enc [16, 50]" in refused(directory)

    def test_truncated(self, tmp_path: Path) -> None:
        directory = write_saelens(tmp_path / "sae", weights((50, 16)))
        file = directory / "sae_weights.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        assert "truncated: an array ends at byte" in refused(directory)


class TestGemmaScope:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_rows(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        tensors = {**weights(shape), "threshold": torch.rand(shape[0])}
        sae = load_sae(write_gemma_scope(tmp_path / "sae", tensors))
        assert sae.format == "gemma_scope"
        check_rows(sae.W_dec, tensors["W_dec"])
        assert torch.equal(sae.tensor("threshold"), tensors["threshold"])
        assert (sae.site, sae.model_name, sae.metadata) == (None, None, {})

    def test_lower_case_names(self, tmp_path: Path) -> None:
        tensors = {name.lower(): tensor for name, tensor in weights((50, 16)).items()}
        sae = load_sae(write_gemma_scope(tmp_path / "sae", tensors))
        check_rows(sae.W_dec, tensors["w_dec"])

    @pytest.mark.parametrize(
        ("repository", "site", "model_name"),
        [
            ("gemma-scope-2b-pt-res", "blocks.12.hook_resid_post", "google/gemma-2-2b"),
            (
                "models--google--gemma-scope-9b-it-res/snapshots/0a1b",
                "blocks.12.hook_resid_post",
                "google/gemma-2-9b-it",
            ),
            ("gemma-scope-2b-pt-mlp", "blocks.12.hook_mlp_out", "google/gemma-2-2b"),
            ("gemma-scope-2b-pt-att", "blocks.12.attn.hook_z", "google/gemma-2-2b"),
            ("my-saes", None, None),
        ],
    )
    def test_what_the_path_says(
        self, tmp_path: Path, repository: str, site: str | None, model_name: str | None
    ) -> None:
        place = tmp_path / repository / "layer_12" / "width_16k" / "average_l0_82"
        sae = load_sae(write_gemma_scope(place, weights((50, 16))))
        assert (sae.site, sae.model_name) == (site, model_name)
        said = {key: sae.metadata[key] for key in ("layer", "width", "average_l0")}
        assert said == {"layer": 12, "width": "16k", "average_l0": 82}

    def test_token_embeddings_are_no_layer(self, tmp_path: Path) -> None:
        place = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k"
        sae = load_sae(write_gemma_scope(place, weights((50, 16))))
        assert (sae.site, sae.model_name) == ("hook_embed", "google/gemma-2-2b")

    def test_a_transposed_decoder_contradicts_its_biases(self, tmp_path: Path) -> None:
        tensors = weights((50, 16))
        tensors["W_dec"] = tensors["W_dec"].T.contiguous()
        message = refused(write_gemma_scope(tmp_path / "sae", tensors))
        assert "is [16, 50], which contradicts b_enc = 50, b_dec = 16" in message


class TestDictionaryLearning:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_rows_of_decoder_weight(
        self, tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        state = batch_topk_state(shape, dtype)
        sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, shape))
        assert sae.format == "dictionary_learning"
        check_rows(sae.W_dec, state["decoder.weight"].T)
        assert torch.equal(sae.tensor("encoder.weight"), state["encoder.weight"])
        assert sae.tensor("k") == 64

    @pytest.mark.parametrize("shape", SHAPES)
    def test_rows_of_W_dec(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        state = {**weights(shape), "threshold": torch.rand(shape[0])}
        sae = load_sae(write_dictionary_learning(tmp_path / "sae", state, shape))
        check_rows(sae.W_dec, state["W_dec"])

    def test_parameters_and_non_contiguous_tensors(self, tmp_path: Path) -> None:
        decoder = torch.nn.Parameter(torch.randn(50, 16).T)
        sae = load_sae(
            write_dictionary_learning(tmp_path / "sae", {"decoder.weight": decoder}, (50, 16))
        )
        check_rows(sae.W_dec, decoder.detach().T)

    def test_site_and_model(self, tmp_path: Path) -> None:
        state = batch_topk_state((50, 16))
        sae = load_sae(write_dictionary_learning(tmp_path / "a", state, (50, 16)))
        assert sae.site == "blocks.15.hook_resid_post"
        assert sae.model_name == "meta-llama/Llama-3.1-8B-Instruct"
        assert sae.metadata["buffer"] == {"ctx_len": 2048}
        changes = {"submodule_name": "mlp_layer_15"}
        sae = load_sae(write_dictionary_learning(tmp_path / "b", state, (50, 16), **changes))
        assert sae.site == "blocks.15.hook_mlp_out"
        changes = {"submodule_name": None}
        sae = load_sae(write_dictionary_learning(tmp_path / "c", state, (50, 16), **changes))
        assert sae.site is None

    def test_sizes_other_than_configured(self, tmp_path: Path) -> None:
        state = batch_topk_state((16, 50))
        message = refused(write_dictionary_learning(tmp_path / "sae", state, (50, 16)))
        assert "decoder.weight [width, latents] is [50, 16], which contradicts" in message
        assert "dict_size = 50, activation_dim = 16" in message

    def test_without_configuration(self, tmp_path: Path) -> None:
        state = batch_topk_state((50, 16))
        directory = write_dictionary_learning(tmp_path / "sae", state, (50, 16))
        (directory / "config.json").unlink()
        message = refused(directory)
        assert "config.json is missing, found ae.pt with encoder.weight [50, 16]" in message

    def test_a_state_dict_of_something_else(self, tmp_path: Path) -> None:
        state = {"pre_bias": torch.zeros(16), "latent_bias": torch.zeros(50)}
        directory = write_dictionary_learning(tmp_path / "sae", state, (50, 16))
        message = refused(directory, format="dictionary_learning")
        assert "neither decoder.weight nor W_dec; it has pre_bias [16]" in message


def write_bare(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, next(iter(arrays.values())))
    else:
        safetensors.numpy.save_file(arrays, path)
    return path


class TestBare:
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".npy"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_only_matrix(self, tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
        W = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        path = write_bare(tmp_path / f"anything{suffix}", {"D": W, "bias": np.zeros(3)})
        sae = load_sae(path)
        assert (sae.format, sae.site, sae.model_name) == ("bare", None, None)
        check_rows(sae.W_dec, torch.from_numpy(W))

    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    def test_W_dec_among_others_and_by_name(self, tmp_path: Path, suffix: str) -> None:
        tensors = weights((50, 16))
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path = write_bare(tmp_path / f"anything{suffix}", arrays)
        check_rows(load_sae(path).W_dec, tensors["W_dec"])
        check_rows(load_sae(path, tensor="W_enc").W_dec, tensors["W_enc"])
        check_rows(load_sae(path, format="bare", tensor="W_enc").W_dec, tensors["W_enc"])

    def test_float64_becomes_float32(self, tmp_path: Path) -> None:
        W = np.random.default_rng(0).standard_normal((50, 16))
        sae = load_sae(write_bare(tmp_path / "decoder.npy", {"decoder": W}))
        check_rows(sae.W_dec, torch.from_numpy(W).float())
        assert sae.tensor("decoder").dtype == torch.float64

    def test_doubt_is_not_resolved_by_guessing(self, tmp_path: Path) -> None:
        arrays = {"A": np.zeros((5, 2)), "B": np.zeros((5, 2)), "W_dec_old": np.zeros((5, 2))}
        message = refused(write_bare(tmp_path / "x.npz", arrays))
        assert "It has A [5, 2], B [5, 2], W_dec_old [5, 2]" in message
        assert "tensor=" in message

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.zeros((3, 2), dtype=np.int32), "W_dec is torch.int32"),
            (np.zeros((3, 2, 2)), "W_dec has shape [3, 2, 2]"),
            (np.zeros((0, 2)), "W_dec has shape [0, 2]"),
            (np.zeros(3), "W_dec has shape [3]"),
        ],
    )
    def test_no_decoder_at_all(
        self, tmp_path: Path, array: np.ndarray[Any, Any], reason: str
    ) -> None:
        assert reason in refused(write_bare(tmp_path / "x.npz", {"W_dec": array}))

    def test_an_unknown_tensor(self, tmp_path: Path) -> None:
        path = write_bare(tmp_path / "x.npz", {"D": np.zeros((3, 2))})
        assert "no tensor 'W_dec'; it has D [3, 2]" in refused(path, tensor="W_dec")

    def test_a_directory(self, tmp_path: Path) -> None:
        assert "is not a .safetensors, .npz, .npy file" in refused(tmp_path, format="bare")


Maker = Callable[[Path], Path]
MAKERS: dict[str, Maker] = {
    "saelens": lambda place: write_saelens(place, weights((50, 16))),
    "gemma_scope": lambda place: write_gemma_scope(place, weights((50, 16))),
    "dictionary_learning": lambda place: write_dictionary_learning(
        place, batch_topk_state((50, 16)), (50, 16)
    ),
}


class TestChoice:
    @pytest.mark.parametrize("made", list(MAKERS))
    @pytest.mark.parametrize("asked", list(MAKERS))
    def test_an_explicit_format_is_honoured_or_refused(
        self, tmp_path: Path, made: str, asked: str
    ) -> None:
        path = MAKERS[made](tmp_path / "sae")
        if made == asked:
            assert load_sae(path, format=asked).format == made
            return
        message = refused(path, format=asked)
        assert f"is not a {asked} checkpoint" in message
        assert "is missing, found " in message

    def test_an_explicit_format_reads_files_of_any_name(self, tmp_path: Path) -> None:
        directory = MAKERS["gemma_scope"](tmp_path / "sae")
        renamed = shutil.move(directory / "params.npz", tmp_path / "layer12.npz")
        assert load_sae(renamed, format="gemma_scope").format == "gemma_scope"
        assert load_sae(renamed).format == "bare"

    def test_an_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="unknown SAE format 'gguf'; known formats: dict"):
            load_sae(tmp_path, format="gguf")

    def test_tensor_belongs_to_bare_files(self, tmp_path: Path) -> None:
        path = MAKERS["saelens"](tmp_path / "sae")
        with pytest.raises(InputError, match="tensor='W_dec' names a tensor of a bare file"):
            load_sae(path, format="saelens", tensor="W_dec")

    def test_a_missing_path(self, tmp_path: Path) -> None:
        assert "no such file or directory" in refused(tmp_path / "nowhere")

    def test_an_unknown_layout_tells_what_was_found_and_what_was_tried(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "hyperparams.json").write_text("{}")
        np.savez(tmp_path / "w.npz", **{"encoder.weight": np.zeros((5, 2))})
        (tmp_path / "x.pt").write_bytes(b"?")
        message = refused(tmp_path)
        found = (
            "checkpoints/, hyperparams.json, w.npz with encoder.weight [5, 2], x.pt (unreadable)"
        )
        assert f"found {found}; tried dictionary_learning, gemma_scope, " in message
        assert message.endswith(", bare")

    def test_an_empty_directory_and_a_file_of_another_kind(self, tmp_path: Path) -> None:
        assert "found an empty directory" in refused(tmp_path)
        (tmp_path / "notes.txt").write_text("hello")
        assert "found notes.txt; tried " in refused(tmp_path / "notes.txt")

    def test_saelens_weights_without_configuration(self, tmp_path: Path) -> None:
        directory = MAKERS["saelens"](tmp_path / "sae")
        (directory / "cfg.json").unlink()
        assert "no known SAE format: found sae_weights.safetensors with" in refused(directory)


def test_an_absent_tensor_is_an_error_naming_those_there_are(tmp_path: Path) -> None:
    sae = load_sae(MAKERS["dictionary_learning"](tmp_path / "sae"))
    with pytest.raises(InputError, match=r"no tensor 'W_enc'; it has encoder\.weight \[50, 16\]"):
        sae.tensor("W_enc")


def test_an_sae_is_frozen_and_prints_short(tmp_path: Path) -> None:
    sae = load_sae(MAKERS["saelens"](tmp_path / "sae"))
    assert isinstance(sae, SAE)
    with pytest.raises(AttributeError):
        sae.site = "elsewhere"  # type: ignore[misc]
    assert "tensor(" not in repr(sae)
