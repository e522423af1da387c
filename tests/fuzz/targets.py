"""Every reader of files, and what it has to say of any file: the right value, or one line."""

from __future__ import annotations

import io
import json
import random
import shutil
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from deltalens import Attribution, InputError, compare_checkpoints, read_pairs
from deltalens.checkpoints.table import as_csv
from deltalens.examples.store import read_examples
from deltalens.examples.terminal import terminal_text
from deltalens.pairs.graded.pairs import pairs_from_graded
from deltalens.pairs.questions import read_questions
from deltalens.pairs.questions_yaml import find_judge_prompts
from deltalens.pairs.targets import read_targets
from deltalens.pairs.texts import read_texts
from deltalens.report.document import as_script_data, report_document
from deltalens.report.evidence import gather
from deltalens.report.packing import packed
from deltalens.sae import load_sae
from deltalens.sae.files import open_tensors
from deltalens.study.survey.directory import read_contents
from deltalens.study.tokens.log_probs import read_log_probs
from deltalens.trials.interpretation.store import read_interpretations
from deltalens.trials.log import read_completions, read_verdicts
from deltalens.trials.result import SIGNS
from deltalens.trials.setup.settings import read_prompts
from deltalens.trials.side_effects.log import NEUTRAL_DIRECTORY
from deltalens.trials.side_effects.neutral import neutral_effects
from fuzz.mutate import mutated
from helpers.finished_run import (
    add_detection,
    add_everything,
    add_log_probs,
    hostile_texts,
    make_run,
)
from helpers.sae_writers import MAKERS
from helpers.training_run import make_small_run

Outcome = Literal["read", "refused", "alone"]
"""alone: read, where the library that wrote such files refuses it, so that nothing is compared."""

Check = Callable[[], bool | None]


@dataclass(frozen=True)
class Target:
    """A file that is mutated, and what reads it.

    ``check`` raises InputError or is content; it returns False where it had nothing to compare.
    """

    name: str
    file: Path
    sound: bytes
    check: Check

    def outcome(self, rng: random.Random) -> Outcome:
        """What becomes of a mutated file, refused in one short line if it is."""
        self.file.write_bytes(mutated(self.sound, self.file.suffix, rng))
        return self.reads()

    def reads(self) -> Outcome:
        """Of the file as it is."""
        try:
            return "alone" if self.check() is False else "read"
        except InputError as error:
            said = str(error)
        assert "\n" not in said, said
        assert len(said) <= 2000, len(said)
        return "refused"

    def mend(self) -> None:
        """Put the sound file back."""
        self.file.write_bytes(self.sound)


def tensor_targets(place: Path) -> Iterator[Target]:
    """The containers of tensors, each against its own library."""
    torch.manual_seed(0)
    state = {"W": torch.randn(3, 4), "b": torch.randn(4).half(), "k": torch.tensor(3)}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    place.mkdir()
    safetensors.torch.save_file(state, place / "W.safetensors", {"a": "b"})
    np.savez(place / "W.npz", **arrays)
    np.save(place / "W.npy", arrays["W"])
    torch.save({**state, "name": "x", "part": {"k": [1, 2.5]}}, place / "W.pt")
    for suffix, truth in TRUTHS.items():
        file = place / f"W{suffix}"
        yield Target(suffix[1:], file, file.read_bytes(), _as_its_library_reads(file, truth))


def _as_its_library_reads(file: Path, truth: Callable[[bytes], dict[str, Tensor]]) -> Check:
    def check() -> bool:
        found = {name: stored.read() for name, stored in open_tensors(file).tensors.items()}
        try:
            expected = truth(file.read_bytes())
        except Exception:  # of any kind
            return False
        assert set(found) == set(expected), (set(found), set(expected))
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype, name
            assert tensor.shape == expected[name].shape, name
            assert _bits(tensor) == _bits(expected[name]), name
        return True

    return check


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _npy(content: bytes) -> dict[str, Tensor]:
    array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return {"W": torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))}


def _npz(content: bytes) -> dict[str, Tensor]:
    """Without the members' checksums, which numpy.load compares and nobody who maps them can."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {}
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    stream._expected_crc = None
                    arrays |= {member.filename.removesuffix(".npy"): _npy(stream.read())["W"]}
    return arrays


def _torch(content: bytes) -> dict[str, Tensor]:
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


TRUTHS: dict[str, Callable[[bytes], dict[str, Tensor]]] = {
    ".safetensors": safetensors.torch.load,
    ".npz": _npz,
    ".npy": _npy,
    ".pt": _torch,
}


def sae_targets(place: Path) -> Iterator[Target]:
    """Configurations beside an SAE's weights: what it encodes with is finite, or refused."""
    place.mkdir()
    x = torch.randn(2, 16)
    for made, (maker, part) in MAKERS.items():
        path = maker(place / made)
        files = [] if path.is_file() else [*path.rglob("*.json"), *path.rglob("*.yaml")]
        for file in files:

            def check(path: Path = path, part: str | None = part) -> None:
                sae = load_sae(path, part=part)
                named = (sae.site, sae.model_name, sae.input_site)
                assert all(name is None or isinstance(name, str) for name in named), named
                assert sae.encoder().encode(x).isfinite().all()

            yield Target(f"{made}/{file.name}", file, file.read_bytes(), check)


PAIRS = [
    {"prompt": "a", "positive": "b", "negative": "c", "id": 1},
    {"messages": [{"role": "user", "content": "é"}], "positive": "x", "negative": "y"},
    {"prompt": [1, 2], "positive": [3], "negative": [4, 5]},
    {"positive": "\n\nHuman: a\n\nAssistant: b", "negative": "\n\nHuman: a\n\nAssistant: c"},
    {"prompt": "p", "positive": "x", "negative": "y", "positive_weights": [0.5, -2]},
    {
        "prompt": "a",
        "negative_prompt": "d",
        "positive": "b",
        "negative": "b",
        "alignment": [[0, 0]],
    },
    {"clean_prefix": "a", "patch_prefix": "d", "clean_answer": "b", "patch_answer": "c"},
]
GRADED = [
    {"question": "q", "answer": text, "outcome": outcome, "score": 3.5, "label": "4"}
    for text, outcome in (("a", "shown"), ("b", "absent"))
]
CSV = "question,answer,aligned,coherent\nq,a,10,90\nq,b,90,90\n"
YAML = """\
- id: &i one
  type: free_form_judge_0_100
  paraphrases: ["how?", "who?"]
  samples_per_paraphrase: 3
  judge_prompts: &j {aligned: "{question} {answer}", coherent: "{answer}"}
- {id: two, system: s, paraphrases: ['why?'], judge_prompts: *j}
"""


def text_targets(place: Path) -> Iterator[Target]:
    """Pairs, questions, graded answers and texts."""
    place.mkdir()
    lines = {
        "pairs.jsonl": (PAIRS, read_pairs),
        "questions.jsonl": ([{"question": "q", "id": 3, "samples": 2}], read_questions),
        "targets.jsonl": ([{"question": "q", "target": ["a", "b"]}], read_targets),
        "graded.jsonl": (GRADED, pairs_from_graded),
        "texts.jsonl": ([{"text": "a"}, {"prompt": "b"}], lambda path: list(read_texts(path))),
    }
    whole = {
        "graded.csv": (CSV, pairs_from_graded),
        "questions.yaml": (YAML, lambda path: (read_questions(path), find_judge_prompts(path))),
        "questions.txt": ("one?\ntwo?\n", read_questions),
        "texts.txt": ("one\n\ntwo\n", lambda path: list(read_texts(path))),
    }
    for name, (rows, read) in lines.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        yield _target(place / name, text.encode(), read)
    for name, (text, read) in whole.items():
        yield _target(place / name, text.encode(), read)


ADAPTER = {"base_model_name_or_path": "base", "peft_type": "LORA", "revision": None, "r": 8}


def adapter_targets(place: Path) -> Iterator[Target]:
    """An adapter's configuration, as far as it says what it is put on."""
    from deltalens.cli.models.adapter import find_adapter
    from deltalens.cli.models.source import ModelSource

    place.mkdir()

    def read(file: Path) -> None:
        adapter = find_adapter(ModelSource(str(file.parent)))
        assert adapter is not None
        assert isinstance(adapter.base.model, str)
        assert isinstance(adapter.base.revision, str | None)

    yield _target(place / "adapter_config.json", json.dumps(ADAPTER).encode(), read)


CONFIG = """\
command: attribute
directory: .
model: m
sae: [s, é]
site: [3, blocks.4.hook_mlp_out]
pairs: p.jsonl
baseline: zero
out: o
k: 7
sink-norm: 2.5
present-only: true
chat-template-kwargs: {enable_thinking: false, depth: [1, {a: null}]}
inputs: {p.jsonl: "sha256:0"}
"""


def config_targets(place: Path) -> Iterator[Target]:
    """A command's configuration: arguments as the command line has them, or nothing."""
    from deltalens.cli.config.document import read_config
    from deltalens.cli.config.parse import parse_config
    from deltalens.cli.main import build_parser

    place.mkdir()
    parser = build_parser()

    def read(file: Path) -> None:
        args = parse_config(parser, str(file), read_config(file))
        assert callable(args.run)

    yield _target(place / "config.yaml", CONFIG.encode(), read)


def _target(file: Path, sound: bytes, read: Callable[[Path], Any]) -> Target:
    file.write_bytes(sound)
    return Target(file.name, file, sound, lambda: read(file) and None)


def _read_neutral(run: Path) -> None:
    for arm in SIGNS:
        neutral_effects(run, arm)


def run_targets(place: Path) -> Iterator[Target]:
    """The files of a run directory with everything, and the report made of them."""
    run = place / "run"
    result = make_run(run, texts=hostile_texts())
    add_everything(run, result, hostile_texts())
    add_detection(run, result)
    add_log_probs(run, len(result.pairs), hostile_texts())

    def attribution() -> None:
        found = Attribution.load(run)
        assert len(found.pairs) == len(found.per_pair)

    def steering() -> None:
        as_script_data(packed(report_document(gather(run))))

    def log_probs() -> None:
        read_log_probs(run)
        steering()

    def examples() -> None:
        for line in read_examples(run):
            if "examples" in line:
                shown = terminal_text(line, 3, colour=False).plain
                assert all(map(is_inert, shown.split("\n")))

    checks: dict[str, Check] = {
        "latents.jsonl": examples,
        "examples.json": examples,
        "interpretations.jsonl": lambda: read_interpretations(run) and None,
        "prompts.jsonl": lambda: read_prompts(run) and None,
        "summary.json": steering,
        "metadata.json": steering,
        "ablation.csv": steering,
        "detection.csv": steering,
        "detection.json": steering,
        "token_log_probs.jsonl": log_probs,
    }
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        check = checks.get(file.name, attribution)
        if "completions" in file.name or file.name.startswith(("toward.", "away.")):
            read = read_verdicts if file.name.count(".") > 1 else read_completions
            check = lambda read=read, file=file: read(file) and None  # noqa: E731
        if file.parent.name == NEUTRAL_DIRECTORY:
            check = partial(_read_neutral, run)
        if file.suffix in (".json", ".jsonl", ".csv", ".safetensors"):
            yield Target(f"run/{file.name}", file, file.read_bytes(), check)
    survey = place / "survey"
    survey.mkdir()
    said = {"options": {"k": 1}, "model": "m", "behaviours": ["b"]}
    at = {"site": "12", "sae": None, "directory": "site-12", "fingerprints": {"sae": "x"}}
    text = json.dumps({"survey": {**said, "places": [at]}})
    yield _target(survey / "settings.json", text.encode(), lambda file: read_contents(file.parent))


def is_inert(line: str) -> bool:
    """Printable, or wide spaces, or letters that this version of Unicode does not have."""
    return all(
        letter.isprintable() or unicodedata.category(letter) in ("Zs", "Cn") for letter in line
    )


def checkpoint_targets(place: Path) -> Iterator[Target]:
    """The files of one of two runs that are compared as checkpoints."""
    runs = [place / name for name in ("step1", "step2")]
    make_small_run(runs[0])
    shutil.copytree(runs[0], runs[1])

    def check() -> None:
        found = compare_checkpoints(runs, top=4)
        json.dumps(found.as_dict(), allow_nan=False)
        assert len(as_csv(found).splitlines()) >= 2 * len(found.courses)

    read = (
        "metadata.json",
        "attribution.csv",
        "delta_activation.safetensors",
        "summary.json",
        "detection.json",
        "detection.csv",
    )
    files = [file for file in sorted(runs[1].rglob("*")) if file.name in read]
    for file in [*files, *(runs[1] / "steering").glob("*.*.jsonl")]:
        yield Target(f"checkpoint/{file.name}", file, file.read_bytes(), check)


FAMILIES = {
    "tensors": tensor_targets,
    "saes": sae_targets,
    "texts": text_targets,
    "adapters": adapter_targets,
    "configurations": config_targets,
    "runs": run_targets,
    "checkpoints": checkpoint_targets,
}
