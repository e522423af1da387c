"""check-sae on the organism's SAE, as it is and with each convention broken on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import deltalens
from deltalens import InputError
from deltalens.cli.main import main
from deltalens.organism import dialogues, load_organism
from deltalens.organism.evaluate import site_rows
from deltalens.organism.load import DATA
from deltalens.pairs.encode import encode_prompt
from deltalens.sae import save_saelens
from deltalens.study import check_sae
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_tokenizer,
)

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
# As measured when the SAE was trained.
EXPLAINED = json.loads((DATA / "summary.json").read_text())["sae"]["explained_variance"]
KEPT = json.loads((DATA / "sae" / "cfg.json").read_text())["k"]


@pytest.fixture(scope="module")
def organism():
    return load_organism()


@pytest.fixture(scope="module")
def said():
    return dialogues(60, seed=3, hostile=0.5)


@pytest.fixture(scope="module")
def norm(organism, said):
    """Mean norm of the site's activations."""
    rows = site_rows(organism.base, organism.tokenizer, said, site=organism.site)
    return float(rows.norm(dim=1).mean())


def rewritten(organism, directory, *, scale=1.0, latents=slice(None), **cfg):
    """The organism's SAE, as one trained on inputs multiplied by ``scale``."""
    sae = organism.sae
    W_enc, b_enc, W_dec, b_dec = (sae.tensor(name).clone() for name in NAMES)
    save_saelens(
        directory,
        W_enc=W_enc[:, latents] / scale,
        b_enc=b_enc[latents],
        W_dec=W_dec[latents] * scale,
        b_dec=b_dec * scale,
        cfg={"k": KEPT, "metadata": {"hook_name": "blocks.1.hook_resid_post"}, **cfg},
    )
    return deltalens.load_sae(directory)


def checked(organism, said, sae, site=None):
    return check_sae(
        organism.base,
        organism.tokenizer,
        sae,
        site=organism.site if site is None else site,
        texts=[dialogue.messages for dialogue in said],
    )


def _rows(organism, dialogue):
    ids = encode_prompt(organism.tokenizer, dialogue.messages, bos=None, name="a dialogue")
    hidden = organism.base(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return hidden[organism.site + 1][0, 1:].detach()


def test_an_sae_as_it_was_trained_has_no_warnings(organism, said, tmp_path):
    found = checked(organism, said, rewritten(organism, tmp_path / "sae"))
    assert found.warnings == []
    rows = torch.cat([_rows(organism, dialogue) for dialogue in said]).double()
    W_enc, b_enc, W_dec, b_dec = (organism.sae.tensor(name).double() for name in NAMES)
    before = (rows - b_dec) @ W_enc + b_enc
    kept = before.topk(KEPT, dim=1)
    z = torch.zeros_like(before).scatter(1, kept.indices, kept.values.clamp(min=0))
    left = (rows - z @ W_dec - b_dec).square().sum() / (rows - rows.mean(0)).square().sum()
    assert found.reconstruction.explained == pytest.approx(1 - float(left), abs=1e-5)
    assert (found.reconstruction.tokens, found.excluded) == (len(rows), len(said))
    norms = W_dec.norm(dim=1)
    assert found.rows.median == pytest.approx(float(norms.median()))
    assert found.rows.cosine == pytest.approx(
        float(torch.cosine_similarity(W_enc.T, W_dec, dim=1).median()), abs=1e-5
    )


def test_the_other_bias_convention_is_named(organism, said, tmp_path):
    sae = rewritten(organism, tmp_path / "sae", apply_b_dec_to_input=False)
    (warning,) = checked(organism, said, sae).warnings
    assert warning.startswith(
        f"with b_dec subtracted from the input the SAE fits better: {EXPLAINED:.2f}"
    )


@pytest.mark.parametrize("inverse", [False, True])
def test_a_missing_input_scale_is_named(organism, said, norm, tmp_path, inverse):
    scale = 128**0.5 / norm
    name = "mean norm / √d" if inverse else "√d / mean norm"
    sae = rewritten(organism, tmp_path / "sae", scale=1 / scale if inverse else scale)
    found = checked(organism, said, sae)
    assert found.alternatives[0].name.startswith(f"the input scaled by {name} (")
    assert found.alternatives[0].explained == pytest.approx(EXPLAINED, abs=0.01)
    assert found.warnings[0].startswith(f"with the input scaled by {name}")


@pytest.mark.parametrize("site", [0, 2])
def test_a_neighbouring_layer_is_named(organism, said, tmp_path, site):
    found = checked(organism, said, rewritten(organism, tmp_path / "sae"), site)
    assert found.warnings[0] == (
        f"the SAE says it was trained at blocks.1.hook_resid_post, but the site is "
        f"blocks.{site}.hook_resid_post"
    )
    assert found.warnings[1].startswith(f"the SAE fits layer 1 better: {EXPLAINED:.2f}")


@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
def test_a_transposed_square_matrix_is_named(organism, said, tmp_path, name):
    """The 128 latents that are active most often, with one matrix on its side."""
    found = checked(organism, said, organism.sae)
    active = found.reconstruction.active.argsort(descending=True)[:128]
    sae = rewritten(organism, tmp_path / "sae", latents=active)
    assert not [line for line in checked(organism, said, sae).warnings if "transposed" in line]
    tensors = {name: sae.tensor(name).clone() for name in NAMES}
    tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, tmp_path / "sae" / "sae_weights.safetensors")
    broken = checked(organism, said, deltalens.load_sae(tmp_path / "sae"))
    assert broken.alternatives[0].name == f"{name} transposed"
    assert any(line.startswith(f"with {name} transposed the SAE fits") for line in broken.warnings)
    assert any("encoder and decoder rows are unrelated" in line for line in broken.warnings)


def test_useless_rows_are_named(organism, said, tmp_path):
    sae = rewritten(organism, tmp_path / "sae")
    tensors = {name: sae.tensor(name).clone() for name in NAMES}
    tensors["W_dec"][[3, 5]] = 0
    tensors["W_dec"][9, 1] = torch.inf
    save_file(tensors, tmp_path / "sae" / "sae_weights.safetensors")
    found = checked(organism, said, deltalens.load_sae(tmp_path / "sae"))
    assert found.warnings[:2] == [
        "2 decoder rows are zero: latents 3, 5",
        "1 decoder rows are not finite: latents 9",
    ]
    assert (found.rows.zero, found.rows.nonfinite) == ([3, 5], [9])


def test_an_sae_that_fires_everywhere_is_named(organism, said, tmp_path):
    sae = rewritten(organism, tmp_path / "sae", architecture="standard")
    tensors = {name: sae.tensor(name).clone() for name in NAMES}
    tensors["b_enc"] += 10
    save_file(tensors, tmp_path / "sae" / "sae_weights.safetensors")
    warnings = checked(organism, said, deltalens.load_sae(tmp_path / "sae")).warnings
    assert any("latents are active on average" in line for line in warnings)
    assert any("only -" in line and "is this the model" in line for line in warnings)


def test_a_decoder_alone_is_still_looked_at(organism, said, tmp_path):
    np.save(tmp_path / "decoder.npy", organism.sae.tensor("W_dec").numpy())
    found = checked(organism, said, deltalens.load_sae(tmp_path / "decoder.npy"))
    assert found.reconstruction is None
    assert found.rows.largest == pytest.approx(
        float(organism.sae.tensor("W_dec").norm(dim=1).max())
    )
    assert [line for line in found.warnings if line.startswith("cannot encode with it")]


def test_tokens_of_huge_norm_are_left_out(tmp_path, monkeypatch):
    """Word w9's embedding makes its activations 1,000 times larger than the others'."""
    model, tokenizer = make_model(), make_tokenizer()
    loud = tokenizer.convert_tokens_to_ids("w9")
    with torch.no_grad():
        model.model.embed_tokens.weight[loud] *= 1e3
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.randn(40, D_MODEL, generator=generator)
    save_saelens(
        tmp_path / "sae",
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(40),
        W_dec=W_dec,
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": 4, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    sae = deltalens.load_sae(tmp_path / "sae")
    found = check_sae(model, tokenizer, sae, site=SITE, texts=["w1 w2 w3 w9 w4", "w5 w6 w7"])
    assert (found.reconstruction.tokens, found.excluded) == (7, 3)


def test_text_that_the_tokenizer_does_not_know_is_refused(organism):
    with pytest.raises(InputError, match=r"does not know 69% of the sample's tokens"):
        check_sae(organism.base, organism.tokenizer, organism.sae, site=1)
    with pytest.raises(InputError, match="no token after each text's first"):
        check_sae(organism.base, organism.tokenizer, organism.sae, site=1, texts=[[5]])


@pytest.fixture(scope="module")
def texts(said, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"messages": one.messages}) + "\n" for one in said))
    return path


def test_the_command_prints_what_was_found(organism, said, texts, capsys):
    argv = ["check-sae", "--model", str(DATA / "base"), "--sae", str(DATA / "sae")]
    argv += ["--texts", str(texts), "--quiet", "--dtype", "float32"]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = checked(organism, said, organism.sae)
    assert printed["reconstruction"]["explained"] == found.reconstruction.explained
    assert (printed["format"], printed["architecture"]) == ("saelens", f"topk, k = {KEPT}")
    (warning,) = printed["warnings"]
    assert warning.startswith("the SAE says it was trained on deltalens-organism, but the model")
    assert printed["alternatives"]["layer 2"] < printed["compared"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert f"{found.reconstruction.explained:.4f}" in shown
    assert "warning: the SAE says it was trained on" in shown


def test_delta_activation_from_the_command_line(organism, said, texts, tmp_path, capsys):
    argv = ["delta-activation", "--model", str(DATA / "misaligned"), "--sae", str(DATA / "sae")]
    argv += [
        "--against",
        str(DATA / "base"),
        "--texts",
        str(texts),
        "--quiet",
        "--dtype",
        "float32",
    ]
    argv += ["--out", str(tmp_path / "run"), "-k", "5"]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = deltalens.delta_activation(
        organism.misaligned,
        organism.base,
        organism.tokenizer,
        [one.messages for one in said],
        organism.sae,
        site=organism.site,
        k=5,
    )
    assert printed["latents"] == found.rows()
    assert printed["prompts"] == 60
    assert main(argv) == 0
    assert f" {int(found.latents[0])} " in capsys.readouterr().out
    lines = (tmp_path / "run" / "delta_activation.csv").read_text().splitlines()
    assert [int(line.split(",")[1]) for line in lines[1:]] == found.latents.tolist()


@pytest.mark.parametrize(
    "given", [[], ["--against", "m"], ["--texts", "t"], ["--against", "m", "--pairs", "p"]]
)
def test_delta_activation_wants_one_kind_of_input(given, tmp_path, capsys):
    argv = ["delta-activation", "--model", "m", "--sae", "s", "--out", str(tmp_path / "run")]
    assert main([*argv, *given]) == 2
    assert "give either --pairs, or --against MODEL with --texts" in capsys.readouterr().err
