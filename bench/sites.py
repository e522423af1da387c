"""What several sites cost in one pass: beside one site, beside a pass for each, and in memory.

python bench/sites.py [--layers 26 --d-model 2304 --pairs 148 --batch-tokens 256]

The model has random weights and narrow blocks; d_model and the number of layers, which decide what
rows and moments take, are real. Seconds are the process's own, on one thread, so that other work on
the machine does not count; memory is what the process grows by beyond the model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import deltalens
from deltalens.study import Baseline
from memory import peak_bytes
from results import Row, write_rows

VOCABULARY, LATENTS = 1000, 512
MIB = 1 << 20


def make_model(layers: int, d_model: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=d_model,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def make_pairs(count: int, prompt: int) -> list[deltalens.Pair]:
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()

    def near(length: int) -> int:
        return length * 3 // 4 + int(torch.randint(length // 2 + 1, (1,), generator=draw))

    return [
        deltalens.Pair([1, *ids(near(prompt))], ids(near(10)), ids(near(10))) for _ in range(count)
    ]


def captured(model: Any, pairs: list[deltalens.Pair], site: Any, batch_tokens: int) -> list[Any]:
    rows = deltalens.capture(model, None, pairs, site=site, sinks=None, batch_tokens=batch_tokens)
    return list(rows)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def drained(model: Any, pairs: list[deltalens.Pair], site: Any, batch_tokens: int) -> None:
    """As a user goes through them, keeping none."""
    for _ in deltalens.capture(
        model, None, pairs, site=site, sinks=None, batch_tokens=batch_tokens
    ):
        pass


def are_equal(model: Any, pairs: list[deltalens.Pair], sites: list[int], batch: int) -> bool:
    """Whether every site has the bits of a pass of its own."""
    together = captured(model, pairs, sites, batch)
    for site in sites:
        for found, alone in zip(together, captured(model, pairs, site, batch), strict=True):
            for name in ("acts", "grad_positive", "grad_negative"):
                if not torch.equal(getattr(found[site], name), getattr(alone, name)):
                    return False
    return True


def cost(model: Any, options: argparse.Namespace) -> Iterator[Row]:
    """Seconds of the lowest site alone, of eight together, and of eight one after the other."""
    pairs = make_pairs(options.timed_pairs, options.prompt)
    layers = options.layers
    sites = [layer * layers // 8 for layer in range(8)]
    run = partial(drained, model, pairs, batch_tokens=options.batch_tokens)
    works = {
        "1 site": partial(run, sites[0]),
        "8 sites in one pass": partial(run, sites),
        "8 sites, a pass each": lambda: [run(site) for site in sites],
    }
    run(sites[0])
    rounds = [
        {name: cpu_seconds(work) for name, work in works.items()} for _ in range(options.rounds)
    ]
    times = {name: statistics.median(one[name] for one in rounds) for name in works}
    equal = are_equal(model, pairs[:4], sites, options.batch_tokens)
    for name, taken in times.items():
        yield {
            "what": f"capture: {name}",
            "sites": 1 if name == "1 site" else 8,
            "pairs": len(pairs),
            "cpu_seconds": f"{taken:.1f}",
            "to_one_site": f"{taken / times['1 site']:.2f}",
            "peak_mib": "",
            "equal_bits": equal,
        }


def memory(model: Any, options: argparse.Namespace) -> Iterator[Row]:
    """Peaks of all layers' moments, and of all layers' studies with p-values."""
    pairs = make_pairs(options.pairs, options.prompt)
    sites = list(range(options.layers))
    shared = {
        "site": sites,
        "baseline": Baseline.zero(options.d_model),
        "batch_tokens": options.batch_tokens,
    }
    decoders = [torch.randn(LATENTS, options.d_model) for _ in sites]

    def moments() -> None:
        deltalens.study_moments(model, None, pairs, **shared)

    def studies() -> None:
        with tempfile.TemporaryDirectory(dir=options.directory) as folder:
            deltalens.attribute(
                model, None, pairs, decoders, check=0, run_dir=Path(folder) / "runs", **shared
            )

    for name, work in (("study_moments", moments), ("attribute, p-values", studies)):
        taken: list[float] = []
        peak = peak_bytes(lambda work=work, taken=taken: taken.append(cpu_seconds(work)))
        yield {
            "what": f"{name}: every layer",
            "sites": len(sites),
            "pairs": len(pairs),
            "cpu_seconds": f"{taken[0]:.1f}",
            "to_one_site": "",
            "peak_mib": f"{peak / MIB:.0f}",
            "equal_bits": "",
        }


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of random weights
        yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--pairs", type=int, default=148)
    parser.add_argument("--timed-pairs", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt, about")
    parser.add_argument("--batch-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=("cost", "memory"))
    parser.add_argument("--directory", type=Path, help="for rows; default: the system's")
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.set_num_threads(1)
    model = make_model(options.layers, options.d_model)
    parts = {"cost": cost, "memory": memory}
    rows: list[Row] = []
    with quiet():
        for name, part in parts.items():
            if options.only in (None, name):
                for row in part(model, options):
                    row |= {
                        "layers": options.layers,
                        "d_model": options.d_model,
                        "prompt_tokens": options.prompt,
                        "batch_tokens": options.batch_tokens,
                    }
                    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                    rows.append(row)
    if not options.no_results:
        print(write_rows("sites", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
