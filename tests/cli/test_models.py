"""Models of every kind that the command line loads: adapters, image-text models, device maps."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from deltalens import InputError
from deltalens.cli.main import main
from deltalens.cli.models.load import load_one, load_two
from deltalens.cli.models.pretrained import device_map, load_pretrained
from deltalens.cli.models.source import ModelSource
from deltalens.lm.model.identity import model_fingerprint
from helpers.adapters import KINDS, LORA, adapted, saved
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import make_model, make_tokenizer

IDS = torch.tensor([[1, 7, 8, 9, 10]])
OFFLOADED = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture
def places(inputs, tmp_path) -> dict[str, Path]:
    """A base and two adapters of it."""
    base = inputs / "model"
    kind = KINDS["lora"]
    return {
        "base": base,
        **{
            name: saved(adapted(make_model(), kind(), seed), tmp_path / name, base)
            for name, seed in (("a", 1), ("b", 2))
        },
    }


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def storages(*models: Any) -> set[int]:
    return {p.untyped_storage().data_ptr() for model in models for p in model.parameters()}


def source(place: Path, **options: Any) -> ModelSource:
    return ModelSource(str(place), **options)


def test_an_adapter_is_its_base_with_it(places):
    model, tokenizer = load_one(source(places["a"]))
    assert torch.equal(logits(model), logits(adapted(make_model(), KINDS["lora"](), 1)))
    assert len(tokenizer) == len(make_tokenizer())
    moved, _ = load_one(source(places["a"], base=str(places["base"])))
    assert model_fingerprint(moved) == model_fingerprint(model)


@pytest.mark.parametrize("names", [("a", "base"), ("base", "a"), ("a", "b")])
def test_two_of_one_base_share_its_weights(places, names):
    alone = [load_one(source(places[name]))[0] for name in names]
    two = load_two(*(source(places[name]) for name in names))
    adapters = sum(p.numel() for n, p in alone[0].named_parameters() if "lora_" in n)
    base = sum(p.numel() for p in make_model().parameters())
    count = sum(name != "base" for name in names)
    assert sum(p.numel() for p in two.first.parameters()) == base + count * (
        adapters or sum(p.numel() for n, p in alone[1].named_parameters() if "lora_" in n)
    )
    assert storages(two.first) == storages(two.second)
    for _ in range(2):  # in turns
        assert torch.equal(logits(two.first), logits(alone[0]))
        assert torch.equal(logits(two.second), logits(alone[1]))
    found = [model_fingerprint(model) for model in (two.first, two.second)]
    assert found == [model_fingerprint(model) for model in alone]
    assert not any(p.requires_grad for n, p in two.first.named_parameters() if "lora_" in n)


def test_what_changes_the_base_is_not_shared(places, tmp_path):
    config = peft.LoraConfig(
        **{**LORA, "init_lora_weights": "pissa"}, target_modules=["q_proj", "v_proj"]
    )
    tuned = adapted(make_model(), config)
    changed = saved(tuned, tmp_path / "pissa", places["base"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two = load_two(source(changed), source(places["base"]))
    assert torch.allclose(logits(two.first), logits(tuned), atol=1e-5)
    assert torch.equal(logits(two.second), logits(make_model()))


def test_adapters_of_different_kinds(places, tmp_path):
    tuned = adapted(make_model(), KINDS["ia3"]())
    other = saved(tuned, tmp_path / "ia3", places["base"])
    two = load_two(source(places["a"]), source(other))
    assert torch.equal(logits(two.second), logits(tuned))


def test_more_embeddings_than_the_base_has(places, tmp_path):
    grown = make_model()
    grown.resize_token_embeddings(43, mean_resizing=False)
    config = peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], **LORA
    )
    tuned = adapted(grown, config)
    place = saved(tuned, tmp_path / "grown", places["base"])
    model, _ = load_one(source(place))
    assert torch.equal(logits(model), logits(tuned))
    assert model_fingerprint(load_one(source(place))[0]) == model_fingerprint(model)
    two = load_two(source(place), source(places["base"]))
    assert logits(two.second).shape[-1] == 40


def test_a_run_knows_its_adapter(inputs, places, tmp_path, capsys):
    run = tmp_path / "run"
    argv = attribute_args(inputs, run, model=places["a"], k=5)
    assert main(argv) == 0
    assert "other settings: baseline" in error_line(
        capsys, attribute_args(inputs, run, model=places["b"], k=5)
    )
    metadata = json.loads((run / "metadata.json").read_text())
    assert metadata["model"]["name"] == metadata["loading"]["model"] == str(places["a"])
    assert main(["ablate", str(run), "--top", "2", "--quiet"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["ablate", str(run), "--top", "2", "--quiet", "--model", str(places["b"])])
    assert f"{places['b']} is not the model" in capsys.readouterr().err


def test_an_adapter_against_its_base(inputs, places, tmp_path, capsys):
    argv = ["delta-activation", "--sae", str(inputs / "sae"), "--texts", str(inputs / "texts.txt")]
    argv += ["--model", str(places["a"]), "--against", str(places["base"]), "--quiet"]
    found = printed_json(capsys, [*argv, "--out", str(tmp_path / "shared")])
    tuned, base = (load_one(source(places[name]))[0] for name in ("a", "base"))
    import deltalens

    expected = deltalens.delta_activation(
        tuned,
        base,
        make_tokenizer(),
        deltalens.read_texts(inputs / "texts.txt"),
        deltalens.load_sae(inputs / "sae"),
        site=1,
        k=100,
    )
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    assert [row["difference"] for row in found["latents"]] == pytest.approx(
        expected.difference[expected.latents].tolist(), abs=1e-9
    )


def test_weights_kept_on_disk(inputs, tmp_path, capsys):
    whole = printed_json(capsys, attribute_args(inputs, tmp_path / "whole", k=5))
    options = {"k": 5, "device-map": json.dumps(OFFLOADED)}
    kept = printed_json(capsys, attribute_args(inputs, tmp_path / "kept", **options))
    for one, other in zip(whole["latents"], kept["latents"], strict=True):
        assert one["latent"] == other["latent"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
        assert one["promotes"] == other["promotes"]
    prints = {
        json.loads((tmp_path / name / "metadata.json").read_text())["fingerprints"]["model"]
        for name in ("whole", "kept")
    }
    assert len(prints) == 1


def test_a_check_of_an_sae_at_weights_on_disk(inputs, capsys):
    whole, kept = (
        printed_json(capsys, ["check-sae", *where(inputs), *placed])
        for placed in ([], ["--device-map", json.dumps(OFFLOADED)])
    )
    assert whole == kept


def test_examples_at_weights_on_disk(inputs, tmp_path):
    lines = []
    for name, placed in (("whole", []), ("kept", ["--device-map", json.dumps(OFFLOADED)])):
        out = tmp_path / name
        assert main(["examples", "--all", *where(inputs), *placed, "--out", str(out)]) == 0
        lines.append((out / "latents.jsonl").read_text())
    assert lines[0] == lines[1]
    assert lines[0]


def where(inputs: Path) -> list[str]:
    at = ["--model", inputs / "model", "--sae", inputs / "sae", "--texts", inputs / "texts.txt"]
    return [*map(str, at), "--quiet"]


def test_image_text_models(tmp_path):
    config = transformers.LlavaConfig(
        text_config=dict(make_model().config.to_dict()),
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        image_token_index=39,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    assert type(load_pretrained(source(tmp_path))).__name__ == "LlavaForConditionalGeneration"


def test_quantised_models_stay_where_they_are_put(inputs, monkeypatch):
    asked: dict[str, Any] = {}

    class Loaded:
        def eval(self) -> Loaded:
            return self

        def to(self, device: Any) -> None:
            raise AssertionError("moved")

    class Auto:
        _model_mapping = (transformers.LlamaConfig,)

        @staticmethod
        def from_pretrained(name: str, **options: Any) -> Loaded:
            asked.update(options)
            return Loaded()

    config = make_model().config
    config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *a, **k: config)
    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Auto)
    load_pretrained(source(inputs / "model", device="cpu"))
    assert asked["device_map"] == {"": "cpu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("everywhere", "is not auto"), ("[1]", "must be an object"), ("{}", "must be an object")],
)
def test_device_maps_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        device_map(text)


def test_device_maps(tmp_path):
    (tmp_path / "map.json").write_text('{"": 0}')
    assert device_map("auto") == "auto"
    assert device_map('{"model": "cpu"}') == {"model": "cpu"}
    assert device_map(str(tmp_path / "map.json")) == {"": 0}


def test_a_path_to_a_gguf_file(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    found = ModelSource.of(type("Args", (), {"model": str(tmp_path / "small.gguf")})())
    assert (found.model, found.gguf_file) == (str(tmp_path), "small.gguf")
    assert found.other("elsewhere") == ModelSource("elsewhere")


@pytest.mark.parametrize(
    ("package", "options", "message"),
    [
        ("peft", {"model": "a"}, "needs peft: pip install 'deltalens[peft]'"),
        ("gguf", {"gguf_file": "x.gguf"}, "needs gguf: pip install 'deltalens[gguf]'"),
        ("accelerate", {"device_map": "auto"}, "needs accelerate: pip install accelerate"),
    ],
)
def test_packages_that_are_missing_are_named(places, monkeypatch, package, options, message):
    monkeypatch.setattr(
        "deltalens.cli.models.pretrained.find_spec", lambda name: None if name == package else name
    )
    given = {"model": str(places[options.get("model", "base")])}
    given |= {name: value for name, value in options.items() if name != "model"}
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        load_one(ModelSource(**given, tokenizer=str(places["base"])))


def test_bad_sources(places, tmp_path):
    with pytest.raises(InputError, match="--base is for adapters"):
        load_one(source(places["base"], base="x"))
    with pytest.raises(InputError, match="leave --device out"):
        load_pretrained(source(places["base"], device="cpu", device_map="auto"))
    with pytest.raises(InputError, match="merge the adapter"):
        load_one(source(places["a"], device_map=json.dumps(OFFLOADED)))
    config = json.loads((places["a"] / "adapter_config.json").read_text())
    (tmp_path / "nameless").mkdir()
    (tmp_path / "nameless" / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": None})
    )
    with pytest.raises(InputError, match="give --base"):
        load_one(source(tmp_path / "nameless"))
