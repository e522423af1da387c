"""Sweeps of every intervention: their texts, what is kept, and what is refused."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import activations, resolve_site, sample
from deltalens.study import Baseline
from deltalens.trials import work as sweep_work
from deltalens.trials.conditions import Condition, stream
from deltalens.trials.interventions import Intervention, Reference
from deltalens.trials.interventions import references as reference_values
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.log import read_completions
from deltalens.trials.result import ATTRIBUTION, RANDOM, Candidate, SweepResult
from deltalens.trials.weighing import weighed
from helpers.made_saes import draw, made_sae
from helpers.tiny_study import D_MODEL, SITE, make_model, make_tokenizer
from helpers.tiny_sweep import PROMPTS, run_sweep

SAE = made_sae(D_MODEL, "relu", f"blocks.{SITE}.hook_resid_post")
SETS = {
    ATTRIBUTION: [Candidate(7, 1), Candidate(9, -1)],
    RANDOM: [Candidate(31, 1), Candidate(32, -1)],
}
BASELINE = Baseline(draw(D_MODEL, seed=5).double(), 1, None)
INTERVENTIONS = {
    "ablate": Intervention("ablate"),
    "clamp": Intervention("clamp", reference=Reference(quantile=0.9)),
    "multiply": Intervention("multiply"),
    "add where active": Intervention("add", only_active=True),
}


def swept(run: Path, name: str, judge: Any = None, **changes: Any) -> SweepResult:
    intervention = INTERVENTIONS[name]
    given: dict[str, Any] = {
        "decoder": SAE,
        "sets": SETS,
        "intervention": intervention,
        "strengths": (0.5, 1.0),
        "models": {"away": make_model()},
    }
    if name == "ablate":
        given["baseline"] = BASELINE
    return run_sweep(run, judge, **{**given, **changes})


def fake_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("deltalens.trials.setup.kept")
    monkeypatch.setattr(module, "decoder_fingerprint", lambda *_: "made")


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SAE made in memory has no file to hash."""
    fake_identity(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, SweepResult]]:
    with pytest.MonkeyPatch.context() as patch:
        fake_identity(patch)
        found = {}
        for name in INTERVENTIONS:
            run = tmp_path_factory.mktemp(name.replace(" ", "-"))
            found[name] = run, swept(run, name)
        return found


def prompt_ids(number: int) -> list[int]:
    tokenizer, prompt = make_tokenizer(), PROMPTS[number]
    if isinstance(prompt, str):
        return tokenizer(prompt, add_special_tokens=False)["input_ids"]
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_each_completion_is_what_it_is_alone(runs: Any, name: str) -> None:
    run, result = runs[name]
    assert result.settings["intervention"] == INTERVENTIONS[name].name
    assert SweepResult.load(run) == result
    model, tokenizer = make_model(), make_tokenizer()
    site = resolve_site(model, SITE)
    kept = json.loads((run / "steering" / "settings.json").read_text())
    references = {int(latent): value for latent, value in kept.get("references", {}).items()}
    treatment = Treatment(
        INTERVENTIONS[name], SAE, as_decoder(SAE), site, result.arms["away"].norm, BASELINE,
        references,
    )  # fmt: skip
    found = read_completions(run / "steering" / "away.jsonl")
    differing = set()
    for key, completion in random.Random(0).sample(sorted(found.items(), key=str), 30):
        condition = Condition(key.latent, key.strength)
        (expected,) = sample(
            model, tokenizer, [prompt_ids(key.prompt)], max_new_tokens=4, seed=4,
            streams=[stream(key)], site=site, edits=treatment.edits([condition]), conditions=[0],
        )  # fmt: skip
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
        (plain,) = sample(
            model, tokenizer, [prompt_ids(key.prompt)], max_new_tokens=4, seed=4,
            streams=[stream(key)],
        )  # fmt: skip
        differing.add((key.latent is None, plain == expected))
    assert (True, False) not in differing
    assert (False, False) in differing


def test_quantiles_are_kept_and_used_again(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, result = runs["clamp"]
    kept = json.loads((run / "steering" / "settings.json").read_text())["references"]
    ids = list(map(prompt_ids, range(4)))
    rows = torch.cat([acts[1:] for _, acts in activations(make_model(), ids, site=SITE)])
    small = rows.norm(dim=1) <= 10 * result.arms["away"].norm
    z = SAE.encoder().encode(rows[small]).double()
    expected = {str(i): float(z[:, i][z[:, i] > 0].quantile(0.9)) for i in (7, 9, 31, 32)}
    assert kept == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(reference_values, "active_quantiles", None)
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    assert swept(run, "clamp") == result


def test_a_second_call_and_other_budgets_do_nothing_anew(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    for name, (run, result) in runs.items():
        assert swept(run, name) == result
        assert weighed(result.with_limit(0.2), run) == result


@pytest.mark.parametrize(
    ("there", "here", "changes", "message"),
    [
        ("multiply", "ablate", {}, r"intervention \(multiply there, ablate direction here\)"),
        ("clamp", "clamp", {"intervention": Intervention("clamp", reference=Reference(value=2.0))},
         r"clamp to q0\.9 there, clamp to 2 here"),
        ("ablate", "ablate", {"baseline": Baseline.zero(D_MODEL)}, "baseline"),
        ("add where active", "multiply", {"intervention": Intervention()},
         r"intervention \(add where active there, add here\)"),
    ],
)  # fmt: skip
def test_another_intervention_in_the_same_place_is_refused(
    runs: Any, there: str, here: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"other settings: .*{message}"):
        swept(runs[there][0], here, **changes)


def test_a_sweep_of_before_there_was_a_choice_was_of_additions(tmp_path: Path) -> None:
    added = run_sweep(tmp_path)
    path = tmp_path / "steering" / "settings.json"
    kept = json.loads(path.read_text())
    assert kept["sampling"].pop("intervention") == "add"
    del kept["sampling"]["baseline"]
    path.write_text(json.dumps(kept))
    assert run_sweep(tmp_path) == added
    with pytest.raises(InputError, match=r"add there, ablate direction here"):
        run_sweep(
            tmp_path, intervention=Intervention("ablate"), baseline=BASELINE, strengths=(0.5,),
            models={"away": make_model()},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ablate", {"models": {"toward": make_model()}}, "steers away only"),
        ("ablate", {"strengths": (1.0, 2.0)}, "ablates all"),
        ("ablate", {"baseline": None}, "give one"),
        ("multiply", {"decoder": torch.randn(50, D_MODEL)}, "SAE"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_begins(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        swept(tmp_path, name, **changes)
    assert not list(tmp_path.glob("steering/*.jsonl"))


@pytest.mark.parametrize("damage", [[1, 2], {"7": "x"}, {"seven": 1.0}, {"7": [1]}, 3])
def test_damaged_references_are_refused(runs: Any, tmp_path: Path, damage: Any) -> None:
    run = Path(shutil.copytree(runs["clamp"][0], tmp_path / "run"))
    path = run / "steering" / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "references": damage}))
    with pytest.raises(InputError, match="is damaged"):
        swept(run, "clamp")
