"""Every command that writes, small: what it does below a folder, and what is there afterwards."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml

import deltalens
from deltalens.cli.config.keep import keep_config
from deltalens.cli.main import build_parser
from deltalens.judge import ChatReply, Usage
from deltalens.pairs import sample_pairs
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.ranks.shard import Shard, ShardDone
from deltalens.sae import transposed
from deltalens.sae.files import open_tensors
from deltalens.sae.matrices import decoder_from
from deltalens.study import Attribution, attribute
from deltalens.study.detection import detect
from deltalens.study.tokens.log_probs import pair_log_probs, save_log_probs
from deltalens.trials.interpretation.interpret import interpret
from helpers.examples_oracle import KEPT, make_sae, make_texts
from helpers.graded_answers import HashJudge, asked
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs, make_tokenizer
from helpers.tiny_survey import decoders, make_survey
from helpers.tiny_sweep import NEUTRAL, W_DEC, run_sweep

Write = Callable[[Path], object]
TWO = [Shard(number=0, of=2), Shard(number=1, of=2)]
_OF_THE_MOMENT = {"timings", "created", "command", "version"}
_IN_ANY_ORDER = ".jsonl"


def make_small() -> None:
    """Everything has several parts."""
    importlib.import_module("deltalens.study.running.row_store").SHARD_PAIRS = 2
    importlib.import_module("deltalens.study.activation.pieces.cut").ROWS = 4
    for name in ("contexts", "collect", "store"):
        importlib.import_module(f"deltalens.examples.{name}").BLOCK = 64
    importlib.import_module("deltalens.storage.line_log")._BATCH = 6
    importlib.import_module("inspect_ai")  # takes seconds
    importlib.import_module("deltalens.trials.side_effects.reading")._LINE = 4
    transposed.IN_MEMORY_BYTES, transposed.CHUNK_BYTES = 0, 3000


model, tokenizer = cache(make_model), cache(make_tokenizer)
other_model = cache(partial(make_model, seed=1))


def prepare(folder: Path) -> None:
    """What commands read, in ``folder``."""
    make_sae(folder / "sae", 4)
    (folder / "texts.txt").write_text("\n\n".join(make_texts(60)))
    matrix = torch.randn(D_MODEL, 200, generator=torch.Generator().manual_seed(5))
    (folder / "columns").mkdir()
    torch.save({"D": matrix}, folder / "columns" / "columns.pt")
    study(folder / "study")
    study(folder / "study-2")
    examples(folder / "study", of=folder)
    run_sweep(folder / "study")
    for number in range(2):
        with suppress(ShardDone):
            for name, work in SHARED.items():
                (folder / "shards" / name).mkdir(parents=True, exist_ok=True)
                with suppress(ShardDone):
                    work(folder / "shards" / name, ranks=TWO[number])


def decoder() -> torch.Tensor:
    return torch.randn(60, D_MODEL, generator=torch.Generator().manual_seed(1))


def study(out: Path, site: Any = SITE, ranks: Ranks = ALONE) -> None:
    several = isinstance(site, list)
    rows = decoder()
    attribute(
        model(),
        tokenizer(),
        make_pairs(5),
        [rows] * len(site) if several else rows,
        site=site,
        baseline=torch.zeros(D_MODEL),
        k=6,
        flips=20,
        check=2,
        save_scores=True,
        run_dir=out,
        ranks=ranks,
    )


def pairs(out: Path, ranks: Ranks = ALONE) -> None:
    questions = [asked(f"q{n}", f"w{n} w{n + 1}") for n in range(3)]
    sampled = {"samples": 5, "max_new_tokens": 4, "out": out / "pairs.jsonl", "ranks": ranks}
    sample_pairs(model(), tokenizer(), questions, HashJudge(), **sampled)


def examples(out: Path, of: Path | None = None, ranks: Ranks = ALONE) -> None:
    folder = of or _folder(out)
    latents = Attribution.load(out).latents if (out / "metadata.json").exists() else None
    deltalens.collect_examples(
        model(),
        tokenizer(),
        deltalens.read_texts(folder / "texts.txt"),
        deltalens.load_sae(folder / "sae"),
        out,
        latents=latents,
        ranks=ranks,
        **{"site": SITE, "context": 8, "save_seconds": 0, **KEPT},
    )


def baseline(out: Path, ranks: Ranks = ALONE) -> None:
    deltalens.mean_activation(
        model(),
        tokenizer(),
        deltalens.read_texts(_folder(out) / "texts.txt"),
        site=SITE,
        max_tokens=600,
        context=30,
        out=out / "baseline.safetensors",
        ranks=ranks,
    )


def difference(out: Path, ranks: Ranks = ALONE) -> None:
    deltalens.delta_activation_of_pairs(
        model(),
        tokenizer(),
        make_pairs(9),
        deltalens.load_sae(_folder(out) / "sae"),
        site=SITE,
        k=5,
        out=out / "difference",
        ranks=ranks,
    )


class Namer:
    """Names what it is asked about by how often."""

    name = "namer"

    def __init__(self) -> None:
        self.usage = Usage()

    def complete(self, requests: Any) -> Iterator[tuple[int, ChatReply]]:
        for number, request in enumerate(requests):
            length = len(request.messages[0]["content"])
            yield number, ChatReply(f"NAME: name {length}\nEXPLANATION: of {length}")


def names(out: Path) -> None:
    interpret(out, Namer(), top=4)


def detection(out: Path) -> None:
    result = Attribution.load(out)
    detect(model(), tokenizer(), result, decoder(), make_pairs(6, seed=9)).save(out)


def log_probs(out: Path) -> None:
    result = Attribution.load(out)
    save_log_probs(out, pair_log_probs(model(), tokenizer(), result.pairs))


def beside(out: Path) -> None:
    models: Any = {"away": model(), "toward": other_model()}
    deltalens.side_effects(out, models, tokenizer(), W_DEC, NEUTRAL)


def copy_of_columns(out: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(out / "cache")
    decoder = decoder_from(open_tensors(out / "columns.pt"), "D", transposed=True)
    assert torch.equal(decoder.rows(0, 200), torch.load(out / "columns.pt")["D"].T)


def exported(out: Path) -> None:
    result = Attribution.load(_folder(out) / "study")
    deltalens.export(result, out / "table.csv", "csv")


def inspect_logs(out: Path) -> None:
    if not (out / "logs").exists():
        deltalens.write_inspect_logs(_folder(out) / "study", out / "logs")


def course(out: Path) -> None:
    study = _folder(out) / "study"
    found = deltalens.compare_checkpoints([study, study.with_name("study-2")])
    deltalens.write_checkpoints(found, out / "course")


def kept_config(out: Path) -> None:
    parser = build_parser()
    argv = ["attribute", "--model", "m", "--sae", "s", "--pairs", "p", "--baseline", "zero"]
    args = parser.parse_args([*argv, "--out", str(out)])
    args.parser, args.ranks, args.inputs = parser, ALONE, {"p": "sha256:0"}
    keep_config(args)


def saved_sae(out: Path) -> None:
    if not (out / "sae").exists():
        make_sae(out / "sae", 2)


def _folder(out: Path) -> Path:
    """Of what :func:`prepare` made: the folder in whose folder ``of-…`` the output is."""
    return next(place for place in out.parents if (place / "texts.txt").exists())


SHARED: dict[str, Any] = {
    "attribute": study,
    "pairs": pairs,
    "examples": examples,
    "baseline": baseline,
    "delta-activation": difference,
}
WRITERS: dict[str, Write] = {
    "compare --checkpoints": course,
    "attribute": study,
    "attribute, several sites": partial(study, site=[0, 2]),
    "survey": lambda out: make_survey(out / "survey", decoders=decoders(300), flips=20),
    "pairs": pairs,
    "steer": run_sweep,
    "steer, side effects": beside,
    "examples": examples,
    "examples of a run": examples,
    "interpret": names,
    "detect": detection,
    "tokens": log_probs,
    "baseline": baseline,
    "delta-activation": difference,
    "transposed copy": copy_of_columns,
    "export": exported,
    "export, Inspect's logs": inspect_logs,
    "an SAE": saved_sae,
    "a configuration": kept_config,
    **{f"merge of {name}": work for name, work in SHARED.items()},
}
BEFORE = {
    "transposed copy": "columns",
    "examples of a run": "study",
    "interpret": "study",
    "detect": "study",
    "tokens": "study",
    "steer, side effects": "study",
    **{f"merge of {name}": f"shards/{name}" for name in SHARED},
}


def begin(folder: Path, name: str, out: Path) -> None:
    """What is there before the command ``name`` writes to ``out``."""
    if name not in BEFORE:
        out.mkdir()
        return
    shutil.copytree(folder / BEFORE[name], out)
    if name == "examples of a run":
        (out / "examples.json").unlink()
        shutil.rmtree(out / "steering")


def content(out: Path) -> dict[str, Any]:
    """What a command has written, but for times and the order of lines that come as they come."""
    files = (path for path in sorted(out.rglob("*")) if not path.is_dir())
    return {str(path.relative_to(out)): _content(path) for path in files}


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _lasting(json.loads(path.read_text()))
    raw = path.read_bytes()
    if path.match("config*.yaml"):
        return {name: one for name, one in yaml.safe_load(raw).items() if name != "out"}
    return sorted(set(raw.split(b"\n"))) if path.suffix == _IN_ANY_ORDER else raw


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in _OF_THE_MOMENT}
    return [_lasting(one) for one in value] if isinstance(value, list) else value
