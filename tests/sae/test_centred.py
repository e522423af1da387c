"""SAEs trained on models whose writing weights were centred, against the formula and autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.lm import Pair, capture
from deltalens.sae import load_sae
from deltalens.sae.encoder import Encoder
from deltalens.sae.latent_attribution import latent_attribution
from deltalens.study.sae_check.alternatives import alternatives
from helpers.families import build, token_ids
from helpers.sae_checks import not_encodable, weights
from helpers.sae_writers import write_saelens

CENTRE = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
RES = {"hook_name": "blocks.8.hook_resid_pre", "model_name": "gpt2-small"}
SHAPE = (40, 12)


def config(**metadata: Any) -> dict[str, Any]:
    return {"architecture": "standard", "apply_b_dec_to_input": True, "metadata": metadata}


def written_out(tensors: dict[str, Tensor], acts: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """z of the standard SAE of a stream without its mean, in fp64."""
    W_enc, b_enc, b_dec = (tensors[name].double() for name in ("W_enc", "b_enc", "b_dec"))
    acts = acts.double()
    own = (acts - acts.mean(1, keepdim=True)) * scale
    return ((own - b_dec) @ W_enc + b_enc).relu()


def test_the_input_s_mean_is_taken_away(tmp_path: Path) -> None:
    tensors, acts = weights(SHAPE), 3 + torch.randn(30, SHAPE[1])
    encoder = load_sae(write_saelens(tmp_path / "s", tensors, **config(**RES, **CENTRE))).encoder()
    z = written_out(tensors, acts)
    torch.testing.assert_close(encoder.encode(acts), z.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        encoder.encode_selected(acts, [3, 30]), z[:, [3, 30]].float(), rtol=1e-4, atol=1e-5
    )
    rebuilt = z @ tensors["W_dec"].double() + tensors["b_dec"].double()
    torch.testing.assert_close(encoder.reconstruct(acts), rebuilt.float(), rtol=1e-4, atol=1e-4)
    own = acts.double() - acts.double().mean(1, keepdim=True)
    spread = (own - own.mean(0)).square().sum()
    explained = 1 - (own - rebuilt).square().sum() / spread
    found = encoder.reconstruction(acts)
    assert found.explained == pytest.approx(float(explained), rel=1e-4)
    again = encoder.reconstruction(acts + 7)
    assert again.explained == pytest.approx(found.explained, rel=1e-4)


def test_centring_comes_before_normalising(tmp_path: Path) -> None:
    tensors, acts = weights(SHAPE), 3 + torch.randn(30, SHAPE[1])
    changes = {**config(**RES, **CENTRE), "normalize_activations": "constant_norm_rescale"}
    encoder = load_sae(write_saelens(tmp_path / "s", tensors, **changes)).encoder()
    own = acts.double() - acts.double().mean(1, keepdim=True)
    norm = own.norm(dim=1, keepdim=True)
    z = written_out(tensors, acts, SHAPE[1] ** 0.5 / norm)
    torch.testing.assert_close(encoder.encode(acts), z.float(), rtol=1e-4, atol=1e-5)
    rebuilt = (z @ tensors["W_dec"].double() + tensors["b_dec"].double()) * norm / SHAPE[1] ** 0.5
    torch.testing.assert_close(
        encoder.decode(z.float(), acts), rebuilt.float(), rtol=1e-4, atol=1e-4
    )


def test_gated_scores_encode_the_same(tmp_path: Path) -> None:
    tensors, acts = weights(SHAPE), 3 + torch.randn(30, SHAPE[1])
    grads = torch.randn(30, SHAPE[1])
    sae = load_sae(write_saelens(tmp_path / "s", tensors, **config(**RES, **CENTRE)))
    expected = -((grads.double() @ tensors["W_dec"].double().T) * written_out(tensors, acts)).sum(0)
    found = latent_attribution(acts, grads, sae.W_dec, sae.encoding, weights=torch.ones(30))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "centred"),
    [
        (config(**RES, **CENTRE), True),
        (config(**RES), False),
        (config(**RES, model_from_pretrained_kwargs={}), False),
        (config(**RES, model_from_pretrained_kwargs={"center_writing_weights": False}), False),
        (
            config(**RES, model_from_pretrained_kwargs={"fold_ln": True, "center_unembed": True}),
            False,
        ),
        ({**config(), "hook_point": "blocks.1.hook_mlp_out", **CENTRE}, True),
        (config(hook_name="blocks.1.attn.hook_z", model_name="gpt2-small", **CENTRE), False),
        (config(hook_name="blocks.1.ln2.hook_normalized", **CENTRE), False),
        (config(hook_name="blocks.1.hook_resid_post", model_name="gemma-2b", **CENTRE), False),
        (config(hook_name="blocks.1.hook_resid_post", model_name="pythia-70m", **CENTRE), True),
    ],
)
def test_what_asks_for_centring(tmp_path: Path, changes: dict[str, Any], centred: bool) -> None:
    sae = load_sae(write_saelens(tmp_path / "s", weights(SHAPE), **changes))
    assert sae.encoding.centred is centred


@pytest.mark.parametrize("kwargs", [None, {}, {"center_writing_weights": False}])
def test_repositories_that_do_not_say_so(tmp_path: Path, kwargs: dict[str, bool] | None) -> None:
    place = tmp_path / "models--jbloom--GPT2-Small-SAEs-Reformatted" / "blocks.8.hook_resid_pre"
    said = {"hook_point": RES["hook_name"], "model_name": "gpt2-small"}
    if kwargs is not None:
        said["model_from_pretrained_kwargs"] = kwargs
    sae = load_sae(write_saelens(place, weights(SHAPE), **{**config(), **said}))
    assert sae.encoding.centred is (not kwargs)


def test_transcoders_of_centred_models_are_refused(tmp_path: Path) -> None:
    changes = {**config(hook_name="blocks.1.hook_mlp_in", **CENTRE), "architecture": "transcoder"}
    changes |= {"d_out": SHAPE[1]}
    path = write_saelens(tmp_path / "s", weights(SHAPE), **changes)
    assert "a transcoder of a model with center_writing_weights" in not_encodable(path)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_other_reading_is_among_the_alternatives(tmp_path: Path, recorded: bool) -> None:
    rows = torch.linalg.qr(torch.randn(SHAPE[1], SHAPE[1]))[0]
    W_dec = torch.cat([rows, -rows])
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "b_enc": torch.zeros(len(W_dec)),
        "W_dec": W_dec - W_dec.mean(1, keepdim=True),
        "b_dec": torch.zeros(SHAPE[1]),
    }
    metadata = {**RES, **(CENTRE if recorded else {})}
    sae = load_sae(write_saelens(tmp_path / "s", tensors, **config(**metadata)))
    acts = 5 * torch.randn(200, 1) + torch.randn(200, SHAPE[1])
    own = Encoder(sae.encoding, sae.W_dec).reconstruction(acts).explained
    found = {other.name: other.explained for other in alternatives(sae.encoding, sae.W_dec, acts)}
    name = "the input as it is" if recorded else "the input less each token's mean"
    centred, other = (own, found[name]) if recorded else (found[name], own)
    assert centred == pytest.approx(1, abs=1e-4)
    assert other < 0.5


def test_a_layer_norm_model_has_no_gradient_along_the_mean() -> None:
    """So a direction's score is that of the centred direction, whatever the decoder row's mean."""
    pair = Pair(token_ids(9, 1), token_ids(3, 2, bos=False), token_ids(2, 3, bos=False))
    for family in ("gpt2", "gpt-neox"):
        (rows,) = capture(build(family), None, [pair], site=1)
        for grads in (rows.grad_positive, rows.grad_negative):
            assert grads.sum(1).abs().max() < 1e-5 * grads.norm(dim=1).max()
    (rows,) = capture(build("llama"), None, [pair], site=1)
    assert rows.grad_positive.sum(1).abs().max() > 0.1 * rows.grad_positive.norm(dim=1).max()
