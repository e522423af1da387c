"""SAELens: every architecture it saves, with its own code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
import yaml
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import deltalens
from comparison import WIDTHS, Compared, randomise, sample
from deltalens.lm.points.names import canonical, parse
from deltalens.sae.encoder import Encoder
from deltalens.sae.formats.neuronpedia import known_name

LIBRARY = "sae-lens"
K = 4
METADATA = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2", "prepend_bos": True}
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")

Begin = Callable[[str, str], Compared]


def build(name: str, widths: tuple[int, int], **settings: Any) -> Any:
    """A ``sae_lens`` object of class ``name`` with random weights."""
    d_in, d_sae = widths
    config = getattr(sae_lens, f"{name}Config")(
        d_in=d_in, d_sae=d_sae, metadata=SAEMetadata(**METADATA), **settings
    )
    sae = getattr(sae_lens, name)(config)
    randomise(sae)
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae.eval()


def check(begin: Begin, what: str, sae: Any, path: Path, acts: Tensor | None = None) -> None:
    """Saved and loaded, and as the object in memory."""
    acts = sample(sae.cfg.d_in) if acts is None else acts
    with torch.no_grad():
        z, rebuilt = sae.encode(acts), sae(acts)
    for ours in (saved(sae, path), deltalens.as_sae(sae)):
        compared = begin(LIBRARY, what)
        compared.sae(ours, acts, sae.W_dec, z, rebuilt)
        compared.equal(
            (ours.format, ours.site, ours.model_name), ("saelens", *list(METADATA.values())[:2])
        )


def saved(sae: Any, path: Path) -> deltalens.SAE:
    save = getattr(sae, "save_inference_model", sae.save_model)
    save(path)
    return deltalens.load_sae(path)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("StandardSAE", {}),
        ("JumpReLUSAE", {}),
        ("GatedSAE", {}),
        ("TopKSAE", {"k": K, "rescale_acts_by_decoder_norm": False}),
        ("TopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    ],
)
def test_saes(
    compared: Begin,
    tmp_path: Path,
    widths: tuple[int, int],
    normalization: str,
    subtract: bool,
    name: str,
    settings: dict[str, Any],
) -> None:
    sae = build(
        name, widths, normalize_activations=normalization, apply_b_dec_to_input=subtract, **settings
    )
    check(compared, f"{name}, every normalisation and bias convention", sae, tmp_path / "sae")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes(compared: Begin, tmp_path: Path, dtype: str) -> None:
    """The library computes in the stored dtype; widened, its latents are those of our fp32."""
    sae = build("JumpReLUSAE", WIDTHS[0], dtype=dtype)
    ours = saved(sae, tmp_path / "sae")
    begin = compared(LIBRARY, "bfloat16 and float16 weights")
    begin.equal(ours.W_dec.rows(0, WIDTHS[0][1]), sae.W_dec)
    acts = sample(WIDTHS[0][0])
    with torch.no_grad():
        z, rebuilt = sae.to(dtype=torch.float32).encode(acts), sae(acts)
    encoder = Encoder(ours.encoding, ours.W_dec)
    begin.latents(encoder.encode(acts), z)
    begin.close(encoder.reconstruct(acts), rebuilt)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("StandardSAE", {}),
        ("JumpReLUSAE", {}),
        ("GatedSAE", {}),
        ("TopKSAE", {"k": K, "rescale_acts_by_decoder_norm": True}),
    ],
)
def test_folded_decoder_norms(
    compared: Begin, tmp_path: Path, widths: tuple[int, int], name: str, settings: dict[str, Any]
) -> None:
    sae = build(name, widths, **settings)
    sae.fold_W_dec_norm()
    check(compared, "fold_W_dec_norm", sae, tmp_path / "sae")


def test_folded_activation_scale(compared: Begin, tmp_path: Path) -> None:
    sae = build("StandardSAE", WIDTHS[0], normalize_activations="expected_average_only_in")
    sae.fold_activation_norm_scaling_factor(0.37)
    check(compared, "fold_activation_norm_scaling_factor", sae, tmp_path / "sae")


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("BatchTopKTrainingSAE", {"k": K, "rescale_acts_by_decoder_norm": False}),
        (
            "MatryoshkaBatchTopKTrainingSAE",
            {"k": K, "rescale_acts_by_decoder_norm": False, "matryoshka_widths": [8, 12]},
        ),
        ("JumpReLUTrainingSAE", {}),
        ("StandardTrainingSAE", {}),
        ("TopKTrainingSAE", {"k": K}),
        ("GatedTrainingSAE", {}),
    ],
)
def test_trained_saes(
    compared: Begin, tmp_path: Path, widths: tuple[int, int], name: str, settings: dict[str, Any]
) -> None:
    """What a training SAE saves for inference, against what SAELens then loads."""
    sae = build(name, widths, **deepcopy(settings))
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.8)
    sae.save_inference_model(tmp_path / "theirs")
    inference = sae_lens.SAE.load_from_disk(tmp_path / "theirs")
    acts = sample(widths[0])
    with torch.no_grad():
        z, rebuilt = inference.encode(acts), inference(acts)
    for ours in (deltalens.load_sae(tmp_path / "theirs"), deltalens.as_sae(sae)):
        compared(LIBRARY, "training SAEs saved for inference").sae(
            ours, acts, inference.W_dec, z, rebuilt
        )


@pytest.mark.parametrize("d_out", [7, 12])
@pytest.mark.parametrize(
    "name",
    ["Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder"],
)
def test_transcoders(compared: Begin, tmp_path: Path, d_out: int, name: str) -> None:
    sae = build(name, (12, 40), d_out=d_out, apply_b_dec_to_input=False)
    check(compared, "transcoders", sae, tmp_path / "sae")


def test_square_transcoder(compared: Begin, tmp_path: Path) -> None:
    sae = build("SkipTranscoder", (16, 16), d_out=16, apply_b_dec_to_input=False)
    check(compared, "transcoders", sae, tmp_path / "sae")


def test_attribution_takes_the_object(compared: Begin) -> None:
    sae = build("StandardSAE", WIDTHS[0])
    acts, grads = sample(WIDTHS[0][0]), sample(WIDTHS[0][0])
    rows = sae.W_dec.detach().double()
    expected = -((grads.double() @ rows.T) * (acts.double() @ rows.T)).mean(0)
    compared(LIBRARY, "attribution over a live object").close(
        deltalens.attribution(acts, grads, sae), expected
    )


def test_neuronpedia_names(compared: Begin) -> None:
    """SAELens's list of published SAEs says which hook most Neuronpedia names mean."""
    begin = compared(LIBRARY, "Neuronpedia names in its list of published SAEs")
    for name, hook in _published():
        begin.equal(_point(name), _point(hook))


def test_neuronpedia_names_of_published_paths(compared: Begin) -> None:
    """Whatever a path tells is in SAELens's list, and nothing is told that it has not."""
    begin = compared(LIBRARY, "Neuronpedia names told by published paths")
    text = (Path(sae_lens.__file__).parent / "pretrained_saes.yaml").read_text()
    listed: dict[str, set[str | None]] = {}
    for release in yaml.safe_load(text).values():
        for entry in release["saes"]:
            place = f"hf://{release['repo_id']}/{entry.get('path', entry['id'])}"
            listed.setdefault(place, set()).add(entry.get("neuronpedia"))
    told = {place: known_name({}, place) for place in listed}
    named = {place: name for place, name in told.items() if name is not None}
    assert len(named) > 300
    for place, name in named.items():
        begin.equal({name}, listed[place])


def test_an_object_says_its_neuronpedia_name(compared: Begin) -> None:
    """As SAELens passes it from its list to the SAE, and from the SAE to its file."""
    begin = compared(LIBRARY, "the Neuronpedia name of an object and of its file")
    sae = build("StandardSAE", WIDTHS[0])
    sae.cfg.metadata.neuronpedia_id = "gpt2-small/4-res-jb"
    begin.equal(deltalens.as_sae(sae).neuronpedia, "gpt2-small/4-res-jb")
    begin.equal(known_name(sae.cfg.to_dict()), sae.cfg.metadata.neuronpedia_id)


def _point(name: str) -> tuple[int, str] | None:
    """Layer and kind; None for what is no site, such as the input of attention's heads."""
    try:
        point = parse(name)
    except deltalens.InputError:
        return None
    return canonical(point.layer, point.kind)


def _published() -> list[tuple[str, str]]:
    """Neuronpedia's name and the hook, of the SAEs whose id begins with their hook."""
    text = (Path(sae_lens.__file__).parent / "pretrained_saes.yaml").read_text()
    found = []
    for release in yaml.safe_load(text).values():
        for entry in release["saes"]:
            hook = re.match(
                r"blocks\.\d+\.hook_(resid_(pre|post|mid)|attn_out|mlp_out|z)", entry["id"]
            )
            name = entry.get("neuronpedia")
            if hook and name and re.fullmatch(r"[^/]+/\d+-.+", name):
                found.append((name, hook[0]))
    assert len(found) > 300
    return found


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("StandardSAE", {"activation_fn_str": "relu"}),
        ("TopKSAE", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}),
        ("GatedSAE", {"architecture": "gated"}),
        ("JumpReLUSAE", {"architecture": "jumprelu"}),
    ],
)
@pytest.mark.parametrize("subtract", [True, False])
def test_configurations_before_6(
    compared: Begin, tmp_path: Path, name: str, old: dict[str, Any], subtract: bool
) -> None:
    """Against what SAELens makes of a flat configuration."""
    settings = {"k": K, "rescale_acts_by_decoder_norm": False} if name == "TopKSAE" else {}
    build(name, WIDTHS[0], **settings).save_model(tmp_path)
    flat = {
        "d_in": WIDTHS[0][0],
        "d_sae": WIDTHS[0][1],
        "dtype": "torch.float32",
        "device": "cpu",
        "model_name": "gpt2-small",
        "hook_name": "blocks.3.hook_resid_post",
        "hook_layer": 3,
        "apply_b_dec_to_input": subtract,
        "normalize_activations": "none",
        **old,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(flat))
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    acts = sample(WIDTHS[0][0])
    with torch.no_grad():
        z, rebuilt = theirs.encode(acts), theirs(acts)
    begin = compared(LIBRARY, "configurations from before 6.0")
    ours = deltalens.load_sae(tmp_path)
    begin.sae(ours, acts, theirs.W_dec, z, rebuilt)
    begin.equal((ours.site, ours.model_name), ("blocks.3.hook_resid_post", "gpt2-small"))


def test_a_study_takes_the_object(compared: Begin) -> None:
    """A study, its lens and exact ablation, over a live object and over its decoder."""
    config = LlamaConfig(
        vocab_size=20, hidden_size=12, intermediate_size=16, num_hidden_layers=4,
        num_attention_heads=2, bos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    pairs = [deltalens.Pair([1, 5, 6, 7], [8, 9], [10]), deltalens.Pair([1, 3, 4], [2], [11, 12])]
    sae = build("TopKSAE", WIDTHS[0], k=K)
    options = {"site": sae.cfg.metadata.hook_name, "baseline": deltalens.Baseline.zero(12), "k": 5}
    ours, rows = (
        deltalens.attribute(model, None, pairs, decoder, **options)
        for decoder in (sae, sae.W_dec.detach())
    )
    begin = compared(LIBRARY, "a study over a live object")
    begin.equal(ours.latents, rows.latents)
    begin.equal(ours.scores, rows.scores)
    begin.equal(ours.lens, rows.lens)
    del options["k"]
    begin.equal(
        deltalens.ablate(model, None, pairs, sae, ours.latents, **options),
        deltalens.ablate(model, None, pairs, sae.W_dec.detach(), ours.latents, **options),
    )
