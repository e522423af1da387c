"""What a survey of 3 behaviours × 8 sites costs beside 24 separate studies.

python bench/survey.py [--pairs 10 --layers 12 --latents 16384]

Both are commands as a user types them, each a process of its own on one thread: `deltalens survey`
once, `deltalens attribute` for each behaviour and site. Nothing is left out: Python and libraries
are loaded, the model and SAEs are read, results and (the survey's) reports are written. A command
that finds its study complete shows what loading alone takes, so that ratios without it are given,
too. Surveys and separate studies take turns. The model has random weights, a real width (576) and a
vocabulary of 32,000; every study of the survey is compared with the separate one, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deltalens.lm import Pair
from deltalens.pairs import write_pairs
from deltalens.sae import save_saelens
from pages import put
from results import Row, write_rows

D_MODEL, VOCABULARY = 576, 32_000
DOCS = Path(__file__).parent.parent / "docs" / "survey.md"
BEHAVIOURS = ("advice", "flattery", "lies")
_OF_THE_MOMENT = ("timings", "created", "command", "behaviour")


class Taken(NamedTuple):
    """Seconds of one command: its processor time and the clock's."""

    cpu: float
    wall: float


def make_inputs(folder: Path, options: argparse.Namespace) -> list[int]:
    """A model, SAEs and pairs; the sites of the SAEs."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=1536,
        num_hidden_layers=options.layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    _tokenizer().save_pretrained(folder / "model")
    sites = [number * options.layers // options.sites for number in range(options.sites)]
    for site in sites:
        _write_sae(folder / "saes" / f"layer-{site}", site, options.latents)
    for seed, name in enumerate(BEHAVIOURS):
        write_pairs(folder / f"{name}.jsonl", _pairs(seed, options))
    return sites


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(VOCABULARY - 3))]
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _write_sae(folder: Path, site: int, latents: int) -> None:
    draw = torch.Generator().manual_seed(site)
    W_dec = torch.nn.functional.normalize(torch.randn(latents, D_MODEL, generator=draw))
    save_saelens(
        folder,
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(latents),
        W_dec=W_dec,
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": 32, "metadata": {"hook_name": f"blocks.{site}.hook_resid_post"}},
    )


def _pairs(seed: int, options: argparse.Namespace) -> list[Pair]:
    draw = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(count))

    return [
        Pair(words(options.prompt), words(options.answer), words(options.answer), id=str(number))
        for number in range(options.pairs)
    ]


def run(arguments: list[str]) -> Taken:
    """A command in a process of its own."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deltalens", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Taken(cpu, time.perf_counter() - started)


class Commands(NamedTuple):
    """The commands that are compared."""

    folder: Path
    sites: list[int]
    options: argparse.Namespace

    def survey(self, out: Path) -> list[str]:
        pairs = [str(self.folder / f"{name}.jsonl") for name in BEHAVIOURS]
        return ["survey", *pairs, *self._shared(out), *self._at(self.sites)]

    def attribute(self, out: Path, behaviour: str, site: int) -> list[str]:
        pairs = ["--pairs", str(self.folder / f"{behaviour}.jsonl")]
        return ["attribute", *pairs, *self._shared(out), *self._at([site])]

    def _at(self, sites: list[int]) -> list[str]:
        saes = [str(self.folder / "saes" / f"layer-{site}") for site in sites]
        return ["--site", *map(str, sites), "--sae", *saes]

    def _shared(self, out: Path) -> list[str]:
        check = str(self.options.check)
        given = {"model": self.folder / "model", "baseline": "zero", "out": out, "check": check}
        return [*(text for name, to in given.items() for text in (f"--{name}", str(to))), "--quiet"]


def measure(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """A row each for the survey, the separate studies, and both without loading."""
    commands = Commands(folder, make_inputs(folder, options), options)
    run(["--version"])  # whatever the system has yet to read
    cells = [(name, site) for name in BEHAVIOURS for site in commands.sites]
    surveys: list[Taken] = []
    alone: list[Taken] = []
    for turn in range(options.surveys):
        surveys.append(run(commands.survey(folder / f"survey-{turn}")))
        for name, site in cells[turn :: options.surveys]:
            out = folder / "alone" / name / f"site-{site}"
            alone.append(run(commands.attribute(out, name, site)))
    equal = all(_same(folder, name, site) for name, site in cells)
    loading = run(commands.attribute(folder / "alone" / cells[0][0] / "site-0", *cells[0]))
    loading_all = run(commands.survey(folder / "survey-0"))
    one = Taken(*map(statistics.median, zip(*surveys, strict=True)))
    every = Taken(*map(sum, zip(*alone, strict=True)))
    count = len(cells)
    work = Taken(*(max(a - b, 1e-9) for a, b in zip(one, loading_all, strict=True)))
    works = Taken(*(a - count * b for a, b in zip(every, loading, strict=True)))
    yield _row("survey", 1, one, one, equal)
    yield _row("separate studies", count, every, one, equal)
    yield _row("survey, complete already", 1, loading_all, one, equal)
    yield _row("separate study, complete already", 1, loading, one, equal)
    yield _row("survey without what a complete one takes", 1, work, work, equal)
    yield _row("separate studies without what complete ones take", count, works, work, equal)


def _row(what: str, commands: int, taken: Taken, beside: Taken, equal: bool) -> Row:
    return {
        "what": what,
        "commands": commands,
        "cpu_seconds": f"{taken.cpu:.1f}",
        "wall_seconds": f"{taken.wall:.1f}",
        "cpu_to_survey": f"{taken.cpu / beside.cpu:.2f}",
        "wall_to_survey": f"{taken.wall / beside.wall:.2f}",
        "equal_bytes": equal,
    }


def _same(folder: Path, name: str, site: int) -> bool:
    return _content(folder / "survey-0" / name / f"site-{site}") == _content(
        folder / "alone" / name / f"site-{site}"
    )


def _content(run: Path) -> dict[str, Any]:
    """All that a study wrote, without its report and what belongs to the moment."""
    found: dict[str, Any] = {
        path.name: path.read_bytes() for path in run.iterdir() if path.suffix != ".html"
    }
    metadata = json.loads(found.pop("metadata.json"))
    return {**found, **{key: metadata[key] for key in metadata if key not in _OF_THE_MOMENT}}


def measured(rows: list[Row]) -> str:
    """What docs/survey.md says of the rows."""
    survey, alone, _, _, work, works = (row["cpu_seconds"] for row in rows)
    first, without = rows[1], rows[5]
    return (
        f"{len(BEHAVIOURS)} behaviours × {first['sites']} sites ({first['pairs']} pairs each, a "
        f"model of {first['layers']} blocks, d_model {D_MODEL}, a vocabulary of {VOCABULARY:,}, "
        f"SAEs of {first['latents']:,} latents, no exact ablation), one thread: `survey` takes "
        f"{survey} s of processor time, {first['commands']} `attribute` commands {alone} s, "
        f"{first['cpu_to_survey']} times as much. Without what loading takes (commands that find "
        f"their studies complete) it is {work} s and {works} s, {without['cpu_to_survey']} times: "
        "what every study needs for itself, p-values above all, does not get less. "
        f"{'All' if first['equal_bytes'] else 'Not all'} studies had the same bytes.\n"
    )


def write_docs(rows: list[Row]) -> None:
    """Put it where docs/survey.md has a place for it."""
    start, end = "<!-- measured: made by bench/survey.py -->", "<!-- end of measured -->"
    put(DOCS, start, end, measured(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=40, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=24, help="tokens of a completion")
    parser.add_argument("--check", type=int, default=0, help="exact ablations of both")
    parser.add_argument("--surveys", type=int, default=2, help="surveys, among separate studies")
    parser.add_argument("--directory", type=Path, help="for everything; default: the system's")
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for row in measure(Path(folder), options):
            sizes = ("layers", "sites", "latents", "pairs", "prompt", "answer", "check")
            row |= {"d_model": D_MODEL, **{name: getattr(options, name) for name in sizes}}
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
    if not options.no_results:
        print(write_rows("survey", rows))
        write_docs(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
