"""Studies at points inside a block, and the same study on wrappers of one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Pair, activations, resolve_site
from deltalens.study import (
    Baseline,
    ablate,
    attribute,
    mean_activation,
)
from deltalens.study.baseline import check_baseline
from helpers.block_families import changed_by_hand, points_of
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs, make_tokenizer

LATENTS = [17, 3, 60]
DECODER = 3 * torch.randn(80, D_MODEL, generator=torch.Generator().manual_seed(4))
MEAN = torch.linspace(-1, 1, D_MODEL)


def loss_by_hand(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    logits = model(torch.tensor([prompt + completion]), use_cache=False).logits[0]
    log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return -log_p.gather(1, torch.tensor(completion)[:, None]).sum()


@torch.no_grad()
def ablated_by_hand(model: Any, kind: str, pair: Pair, row: Tensor) -> float:
    unit = row.double() / row.double().norm()
    prompt: Any = pair.prompt

    def remove(value: Tensor) -> Tensor:
        changed = value.clone()
        counted = value[0, 1 : len(prompt)]
        changed[0, 1 : len(prompt)] -= ((counted - MEAN.double()) @ unit)[:, None] * unit
        return changed

    changes = []
    for completion in (pair.positive, pair.negative):
        before = loss_by_hand(model, prompt, completion)  # type: ignore[arg-type]
        with changed_by_hand(model, "llama", kind, SITE, remove):
            changes.append(loss_by_hand(model, prompt, completion) - before)  # type: ignore[arg-type]
    return float(changes[0] - changes[1]) / (len(prompt) - 1)


@pytest.mark.filterwarnings("ignore:first order disagrees")  # random weights are far from linear
@pytest.mark.parametrize("kind", points_of("llama"))
def test_exact_ablation_and_a_study(kind: str) -> None:
    model, pairs = make_model(torch.float64), make_pairs(3)
    given: dict[str, Any] = {"site": f"blocks.{SITE}.{kind}", "baseline": MEAN}
    exact = ablate(model, None, pairs, DECODER, LATENTS, **given)
    expected = [[ablated_by_hand(model, kind, pair, DECODER[i]) for i in LATENTS] for pair in pairs]
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(exact, wanted, rtol=1e-8, atol=1e-11)
    found = attribute(model, None, pairs, DECODER, k=80, **given)
    assert found.site == resolve_site(model, given["site"]).name
    assert found.metadata["site"]["d_model"] == D_MODEL


def test_a_baseline_is_of_its_point(tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    found = mean_activation(model, tokenizer, ["w1 w2 w3"], site="blocks.1.hook_mlp_out")
    found.save(tmp_path / "b.safetensors")
    loaded = Baseline.load(tmp_path / "b.safetensors")
    assert loaded.site == "blocks.1.hook_mlp_out"
    given: dict[str, Any] = {"baseline": loaded, "k": 3}
    attribute(model, None, make_pairs(2), DECODER, site="model.layers.1.mlp", **given)
    with pytest.raises(InputError, match=r"measured at blocks.1.hook_mlp_out but the site is blo"):
        attribute(model, None, make_pairs(2), DECODER, site=1, **given)


def old_baseline(path: Path, site: str) -> Path:
    """As earlier versions saved one."""
    said = f'{{"tokens": 3, "site": "{site}", "provenance": {{}}}}'
    save_file({"mean": MEAN.double()}, path, {"baseline": said})
    return path


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_baselines_and_runs_know_the_site_across_wrappers_and_versions(tmp_path: Path) -> None:
    plain = make_model()
    adapted = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"], r=2))
    compiled = torch.compile(make_model(), backend="eager")
    paths = [
        f"model.layers.{SITE}",
        f"base_model.model.model.layers.{SITE}",
        f"transformer.h.{SITE}",
    ]
    for number, path in enumerate(paths):
        baseline = Baseline.load(old_baseline(tmp_path / f"{number}.safetensors", path))
        assert baseline.site == f"blocks.{SITE}.hook_resid_post"
        for model in (plain, adapted, compiled):
            check_baseline(baseline, resolve_site(model, SITE))
        with pytest.raises(InputError, match="but the site is"):
            check_baseline(baseline, resolve_site(plain, SITE + 1))
    runs = [
        attribute(model, None, make_pairs(3), DECODER, site=SITE, baseline=MEAN, k=9)
        for model in (plain, adapted, compiled)
    ]
    for run in runs[1:]:
        assert torch.equal(run.latents, runs[0].latents)
        torch.testing.assert_close(run.scores, runs[0].scores)
        assert run.site == runs[0].site == f"blocks.{SITE}.hook_resid_post"


def test_a_run_of_an_earlier_version_is_the_same_run(tmp_path: Path) -> None:
    given: dict[str, Any] = {"site": SITE, "baseline": MEAN, "k": 4, "run_dir": tmp_path / "run"}
    first = attribute(make_model(), None, make_pairs(2), DECODER, **given)
    path = tmp_path / "run" / "metadata.json"
    said = json.loads(path.read_text())
    said["options"]["site"] = said["site"]["path"] = f"model.layers.{SITE}"
    del said["site"]["name"], said["site"]["kind"]
    path.write_text(json.dumps(said))
    again = attribute(make_model(), None, make_pairs(2), DECODER, **given)
    assert torch.equal(again.latents, first.latents)
    assert again.site == f"blocks.{SITE}.hook_resid_post"
    with pytest.raises(InputError, match="other settings: site"):
        attribute(make_model(), None, make_pairs(2), DECODER, **{**given, "site": SITE + 1})


def test_a_site_of_one_model_reads_the_other() -> None:
    one, other = make_model(seed=0), make_model(seed=1)
    site = resolve_site(one, "blocks.1.hook_mlp_out")
    ((_, rows),) = activations(other, [[1, 7, 8]], site=site)
    ((_, expected),) = activations(other, [[1, 7, 8]], site="blocks.1.hook_mlp_out")
    assert torch.equal(rows, expected)
