"""Each edit against its formula: in fp64, and as reconstructions of changed latents differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.lm.points.edits import Additions
from deltalens.lm.sampling.engine import Intervene, Steer
from deltalens.study import Baseline
from deltalens.trials.conditions import UNSTEERED, Condition, directions
from deltalens.trials.interventions import ADD, Intervention, Reference
from deltalens.trials.interventions.treatment import Treatment
from helpers.latent_sae import KINDS, baseline_of, encoded, make_sae, tensors
from helpers.made_saes import ACTIVATIONS, LATENTS, draw, made_sae
from helpers.tiny_study import D_MODEL, SITE, make_model

NORM = 5.0
SITE_NAME = f"blocks.{SITE}.hook_resid_post"
CONDITIONS = [UNSTEERED, Condition(7, -1.0), Condition(3, 0.5), Condition(8, -0.25)]
NUMBERS = torch.tensor([3, 1, 0, 2, 1])
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "b_dec on the output only": {"subtract_b_dec": False},
    "layer_norm": {"normalization": "layer_norm"},
    "constant_norm": {"normalization": "constant_norm", "subtract_b_dec": False},
    "input scale": {"input_scale": 0.3},
    "decoder norms": {"rescale_by_decoder_norm": True},
    "centred": {"centred": True},
}


def hidden(width: int = D_MODEL, dtype: torch.dtype = torch.float32) -> Tensor:
    """[rows, seq, width]; token (1, 2) is an attention sink."""
    found = 2 * draw(len(NUMBERS), 6, width, seed=0)
    found[1, 2] *= 1000
    return found.to(dtype)


def treatment(source: Any, intervention: Intervention, **changes: Any) -> Treatment:
    site = resolve_site(make_model(), SITE)
    given: dict[str, Any] = {"norm": NORM, **changes}
    return Treatment(intervention, source, as_decoder(source), site, **given)


def kept(acts: Tensor) -> Tensor:
    """What is no sink, [rows, seq, 1]."""
    return acts.norm(dim=-1, keepdim=True) <= 10 * NORM


def test_adding_is_a_table_of_directions() -> None:
    W_dec = tensors()["W_dec"]
    made = treatment(W_dec, ADD)
    edits = made.edits(CONDITIONS)
    assert isinstance(edits, Additions)
    assert torch.equal(edits.added, directions(as_decoder(W_dec), CONDITIONS, NORM))
    rows = W_dec[[7, 3, 8]].double()
    units = rows / rows.norm(dim=1, keepdim=True)
    expected = NORM * torch.tensor([[-1.0], [0.5], [-0.25]]) * units
    assert_close(edits.added[1:].double(), expected, rtol=1e-6, atol=1e-7)
    assert not edits.added[0].any()
    steer = made.steer([CONDITIONS[2], UNSTEERED, CONDITIONS[2]], "generated")
    assert isinstance(steer, Steer)
    assert torch.equal(steer.directions, edits.added[[2, 0, 2]])
    assert steer.tokens == "generated"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_ablated_direction_has_the_baseline_s_projection(dtype: torch.dtype) -> None:
    W_dec, mean = tensors()["W_dec"], 3 * draw(D_MODEL, seed=4).double()
    edits = treatment(W_dec, Intervention("ablate"), baseline=Baseline(mean, 1, None)).edits(
        CONDITIONS
    )
    acts = hidden(dtype=dtype)
    found = edits.edited(acts, NUMBERS)
    assert found.dtype == dtype
    expected = acts.double()
    for row, number in enumerate(NUMBERS.tolist()):
        latent, strength = CONDITIONS[number]
        if latent is not None:
            unit = W_dec[latent].double() / W_dec[latent].double().norm()
            taken = abs(strength) * ((expected[row] - mean) @ unit)[:, None] * unit
            expected[row] -= taken * kept(acts)[row]
    tight = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {}
    assert_close(found.double(), expected, **(tight or {"rtol": 1e-5, "atol": 1e-5}))
    whole = found[4].double() @ (W_dec[7].double() / W_dec[7].double().norm())
    assert_close(
        whole,
        mean @ (W_dec[7].double() / W_dec[7].double().norm()) * torch.ones(6).double(),
        rtol=1e-4,
        atol=1e-4,
    )
    assert torch.equal(found[1, 2], acts[1, 2])
    assert torch.equal(found[2], acts[2])


LATENT = {
    "ablate": Intervention("ablate", of="latent"),
    "clamp": Intervention("clamp", reference=Reference(value=4.0)),
    "multiply": Intervention("multiply"),
    "clamp where active": Intervention("clamp", reference=Reference(value=4.0), only_active=True),
    "ablate where active": Intervention("ablate", of="latent", only_active=True),
}


def changed(name: str, z: Tensor, strength: float, mean: Tensor) -> Tensor:
    """What becomes of a latent's activations."""
    kind = name.split()[0]
    if kind == "ablate":
        new = z + abs(strength) * (mean - z)
    else:
        new = torch.full_like(z, 4.0 * strength) if kind == "clamp" else (1 + strength) * z
    return torch.where(z > 0, new, z) if "active" in name else new


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LATENT)
def test_a_latent_s_part_is_what_it_would_write(tmp_path: Any, name: str, kind: str) -> None:
    sae = make_sae(tmp_path / "sae", kind)
    baseline, W_dec = baseline_of(sae), tensors()["W_dec"].double()
    made = treatment(sae, LATENT[name], baseline=baseline, references=dict.fromkeys(range(9), 4.0))
    made.check()
    acts = hidden()
    found = made.edits(CONDITIONS).edited(acts, NUMBERS)
    expected = acts.double()
    active = 0
    for row, number in enumerate(NUMBERS.tolist()):
        latent, strength = CONDITIONS[number]
        if latent is None:
            continue
        z, factor = encoded(kind, acts[row].double())
        assert baseline.latent_mean is not None
        new = changed(name, z[:, latent], strength, baseline.latent_mean[latent])
        active += int((z[:, latent] > 0).sum())
        expected[row] += (new - z[:, latent])[:, None] * factor * W_dec[latent] * kept(acts)[row]
    assert active
    assert_close(found.double(), expected, rtol=2e-5, atol=2e-5)
    assert torch.equal(found[1, 2], acts[1, 2])
    assert torch.equal(found[2], acts[2])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_encoder_as_reconstructions_differ(activation: str, setting: str) -> None:
    """a + decode(z changed) − decode(z), as sparse autoencoders are intervened with elsewhere."""
    sae = made_sae(D_MODEL, activation, SITE_NAME, **SETTINGS[setting])
    acts, encoder = hidden(), sae.encoder()
    flat = acts.flatten(0, 1)
    z = encoder.encode(flat)
    for name in ("clamp", "multiply", "clamp where active"):
        made = treatment(sae, LATENT[name], references=dict.fromkeys(range(LATENTS), 4.0))
        found = made.edits(CONDITIONS).edited(acts, NUMBERS)
        new = z.clone().unflatten(0, acts.shape[:2])
        for row, number in enumerate(NUMBERS.tolist()):
            latent, strength = CONDITIONS[number]
            if latent is not None:
                new[row, :, latent] = changed(name, new[row, :, latent], strength, z)
        written = encoder.decode(new.flatten(0, 1), flat) - encoder.decode(z, flat)
        expected = acts + written.view_as(acts) * kept(acts)
        assert_close(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_where_a_latent_is_active_by_a_real_encoder(activation: str) -> None:
    """At the width of a real model, in bfloat16, too."""
    width = 576
    sae = made_sae(width, activation, SITE_NAME)
    model = make_model(hidden_size=width, num_hidden_layers=2, vocab_size=33_000)
    site = resolve_site(model, SITE)
    for dtype in (torch.float32, torch.bfloat16):
        acts = hidden(width, dtype)
        norm = float(acts.float().norm(dim=-1).median())
        made = Treatment(Intervention("add", only_active=True), sae, as_decoder(sae), site, norm)
        conditions = [UNSTEERED, *(Condition(latent, 0.5) for latent in range(LATENTS))]
        z = sae.encoder().encode(acts.flatten(0, 1)).unflatten(0, acts.shape[:2])
        edits = made.edits(conditions)
        seen = torch.zeros(2, dtype=torch.int64)
        for latent in range(LATENTS):
            found = edits.edited(acts, torch.full((len(acts),), latent + 1))
            moved = (found != acts).any(-1)
            small = acts.float().norm(dim=-1) <= 10 * norm
            assert torch.equal(moved, (z[..., latent] > 0) & small)
            row = sae.W_dec.rows(latent, latent + 1)[0]
            added = (0.5 * norm * row / row.norm()).expand_as(acts)[moved]
            exact = (acts[moved].float() + added).to(dtype)
            assert_close(found[moved], exact)
            seen += torch.tensor([int(moved.sum()), int((~moved).sum())])
        assert seen.min() > 20


def test_ablating_only_where_active() -> None:
    sae = made_sae(D_MODEL, "threshold", SITE_NAME)
    made = treatment(sae, Intervention("ablate", only_active=True), baseline=Baseline.zero(D_MODEL))
    acts = hidden()
    found = made.edits(CONDITIONS).edited(acts, NUMBERS)
    z = sae.encoder().encode(acts.flatten(0, 1)).unflatten(0, acts.shape[:2])
    plain = treatment(sae, Intervention("ablate"), baseline=Baseline.zero(D_MODEL))
    everywhere = plain.edits(CONDITIONS).edited(acts, NUMBERS)
    latents = [CONDITIONS[number].latent or 0 for number in NUMBERS.tolist()]
    active = torch.stack([z[row, :, latent] > 0 for row, latent in enumerate(latents)])
    assert active.any()
    assert not active.all()
    assert torch.equal(found, torch.where(active[..., None], everywhere, acts))


@pytest.mark.parametrize("name", [name for name in LATENT if "ablate" not in name])
def test_a_token_is_edited_as_in_any_other_pass(name: str) -> None:
    """Whatever stands beside it: prompts read at once, or token by token."""
    sae = made_sae(D_MODEL, "topk", SITE_NAME)
    made = treatment(sae, LATENT[name], references=dict.fromkeys(range(LATENTS), 4.0))
    edits, acts = made.edits(CONDITIONS), hidden()
    whole = edits.edited(acts, NUMBERS)
    for row in range(len(acts)):
        for at in range(acts.shape[1]):
            alone = edits.edited(acts[row : row + 1, at : at + 1], NUMBERS[row : row + 1])
            assert_close(whole[row, at], alone[0, 0], rtol=1e-5, atol=1e-5)


def test_what_an_engine_is_asked_for() -> None:
    made = treatment(tensors()["W_dec"], Intervention("ablate"), baseline=Baseline.zero(D_MODEL))
    steer = made.steer([CONDITIONS[1], UNSTEERED, CONDITIONS[1]], "all")
    assert isinstance(steer, Intervene)
    assert list(steer.conditions) == [0, 1, 0]
    assert len(steer.edits) == 2


@pytest.mark.parametrize(
    ("intervention", "changes", "message"),
    [
        (Intervention("ablate"), {}, "give one"),
        (Intervention("ablate"), {"baseline": Baseline.zero(7)}, "d_model 7"),
        (Intervention("multiply"), {}, "expected an SAE"),
        (Intervention("add", only_active=True), {}, "expected an SAE"),
    ],
)
def test_what_is_missing_is_said(intervention: Any, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        treatment(tensors()["W_dec"], intervention, **changes).check()
