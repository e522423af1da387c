"""What a study of a large model takes, on paper: docs/cluster.md's table, with its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from deltalens.engine import plan
from deltalens.engine.cost.resampling import resampling_cost
from deltalens.lm.batching import BATCH_TOKENS
from pages import put

PAGE = Path(__file__).parent.parent / "docs" / "cluster.md"
START, END = "<!-- on paper: made by bench/on_paper.py -->", "<!-- end of on paper -->"

# Data sheet of an H100 SXM, and the shares of it that dense transformers reach.
FLOPS, BANDWIDTH = 989e12, 3.35e12
COMPUTE_SHARE, BANDWIDTH_SHARE = 0.4, 0.6

PAIRS, PROMPT, COMPLETION, LATENTS = 148, 100, 200, 131_072
CONDITIONS, PROMPTS = 600, 100
BATCH = 256  # sequences that an engine holds at a time


@dataclass(frozen=True)
class Model:
    """A published shape; ``gpus`` hold it in bfloat16."""

    name: str
    parameters: float
    layers: int
    d_model: int
    kv_heads: int
    head_width: int
    gpus: int

    @property
    def weights(self) -> float:
        """Bytes in bfloat16."""
        return 2 * self.parameters

    @property
    def cache(self) -> float:
        """Bytes of keys and values in bfloat16 for a token."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_width

    @property
    def graph(self) -> float:
        """Bytes of a graph above the middle layer for a batch.

        At most 34·d a token and layer (Korthikanti et al. 2022, without attention matrices).
        """
        return 34 * self.d_model * self.layers / 2 * BATCH_TOKENS

    @property
    def capture(self) -> float:
        """Seconds: forward 2·P a token, backward half of it, through one GPU after the other."""
        tokens = PAIRS * 2 * (PROMPT + COMPLETION)
        return 3 * self.parameters * tokens / (COMPUTE_SHARE * FLOPS)

    @property
    def step(self) -> float:
        """Seconds for a token of each sequence: weights and cache are read once by all GPUs."""
        read = self.weights + BATCH * (PROMPT + COMPLETION / 2) * self.cache
        reading = read / (BANDWIDTH_SHARE * BANDWIDTH * self.gpus)
        computing = 2 * self.parameters * BATCH / (COMPUTE_SHARE * FLOPS * self.gpus)
        return max(reading, computing)

    @property
    def sweep(self) -> float:
        """Seconds for all completions of a sweep, prompts included."""
        completions = CONDITIONS * PROMPTS
        prompts = 2 * self.parameters * completions * PROMPT / (COMPUTE_SHARE * FLOPS * self.gpus)
        return completions * COMPLETION / BATCH * self.step + prompts


MODELS = (
    Model("2B (Gemma 2)", 2.61e9, 26, 2304, 4, 256, 1),
    Model("9B (Gemma 2)", 9.24e9, 42, 3584, 8, 256, 1),
    Model("70B (Llama 3)", 70.6e9, 80, 8192, 8, 128, 4),
)


def main() -> None:
    """Replace what stands between the page's markers."""
    put(PAGE, START, END, "\n".join(lines()))


def lines() -> Iterator[str]:
    yield (
        f"{PAIRS} pairs of {PROMPT} + {COMPLETION} tokens, site in the middle, {LATENTS:,} latents "
        f"in bfloat16; a sweep of {CONDITIONS} conditions on {PROMPTS} prompts, {COMPLETION} new "
        f"tokens each. H100 SXM by its data sheet ({FLOPS / 1e12:.0f} TFLOP/s bfloat16, "
        f"{BANDWIDTH / 1e12:.2f} TB/s), of which {COMPUTE_SHARE:.0%} of the former and "
        f"{BANDWIDTH_SHARE:.0%} of the latter are counted on. The scan and the p-values are what "
        "`deltalens plan` says of a 2-core CPU. Nothing in this table was measured."
    )
    yield ""
    yield (
        "| model | GPUs | weights | graph of a batch | rows on disk | capture | scan, 2 cores | "
        "p-values, 2 cores | cache a sequence | sweep |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for model in MODELS:
        yield row(model)
    yield ""
    yield from (f"* {line}" for line in arithmetic(MODELS[-1]))


def row(model: Model) -> str:
    tokens = PAIRS * PROMPT
    stored = {"dtype": torch.bfloat16, "device": "cpu"}
    scan = plan(tokens, LATENTS, model.d_model, **stored).cost.seconds
    flips = resampling_cost(tokens, PAIRS, LATENTS, model.d_model, **stored).seconds
    cells = [
        model.name,
        str(model.gpus),
        gigabytes(model.weights),
        gigabytes(model.graph),
        gigabytes(rows_on_disk(model)),
        seconds(model.capture),
        seconds(scan),
        seconds(flips),
        gigabytes((PROMPT + COMPLETION) * model.cache),
        seconds(model.sweep),
    ]
    return f"| {' | '.join(cells)} |"


def rows_on_disk(model: Model) -> float:
    """Activations and two gradients of every prompt token in float32."""
    return 3 * 4 * PAIRS * PROMPT * model.d_model


def arithmetic(model: Model) -> Iterator[str]:
    tokens = PAIRS * 2 * (PROMPT + COMPLETION)
    yield (
        f"Capture, {model.name}: 3 · {model.parameters / 1e9:.1f}·10⁹ · {tokens:,} tokens = "
        f"{3 * model.parameters * tokens:.1e} FLOP: 2 a parameter forward, 1 back to the middle. A "
        "device map lets one GPU work at a time, so that more of them hold more and are no faster; "
        "several processes are."
    )
    yield (
        f"Graph: 34 bytes · d_model {model.d_model:,} · {model.layers // 2} layers · "
        f"{BATCH_TOKENS:,} tokens (`--batch-tokens`), beside 0.6 GB for a chunk of logits."
    )
    yield (
        f"Sweep: {CONDITIONS * PROMPTS:,} completions, {BATCH} at a time; a step reads "
        f"{model.weights / 1e9:.0f} GB of weights and "
        f"{BATCH * (PROMPT + COMPLETION / 2) * model.cache / 1e9:.0f} GB of keys and values with "
        f"{model.gpus} GPUs: {1e3 * model.step:.1f} ms, {BATCH / model.step:,.0f} tokens/s."
    )


def gigabytes(value: float) -> str:
    return f"{value / 1e9:,.0f} GB" if value >= 1e10 else f"{value / 1e9:.2g} GB"


def seconds(value: float) -> str:
    if value >= 600:
        return f"{value / 60:,.0f} min"
    return f"{value:,.0f} s" if value >= 10 else f"{value:.2g} s"


if __name__ == "__main__":
    main()
