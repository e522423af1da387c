"""Conservation under RelP on a model from disk: Σ gradient · activation of blocks, and the logit.

python bench/relp.py --model PATH --name smollm2 [--text TEXT]

Of the likeliest next token of a text, in float32: with fixed attention patterns the sum over all of
the text's tokens equals the logit in a model without biases; with free patterns, and without rules,
it does not. Rows go to bench/results/relp-NAME.csv, and docs/gradients.md says them by
bench/gradients_page.py.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from deltalens.lm.gradients.relp.patches import Rules
from deltalens.lm.sites import decoder_blocks
from results import RESULTS

TEXT = "The Eiffel Tower is the most famous landmark of the city of"


def main() -> None:
    """Write a row for every block."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the file of results")
    parser.add_argument("--text", default=TEXT)
    options = parser.parse_args()
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(options.text, return_tensors="pt")["input_ids"]
    rows = list(measured(model.eval().requires_grad_(False), ids))
    said = {"model": type(model).__name__, "tokens": ids.shape[1], "text": options.text}
    write(RESULTS / f"relp-{options.name}.csv", [{**row, **said} for row in rows])


def measured(model: Any, ids: Tensor) -> Iterator[dict[str, object]]:
    """Of each block the sums under every rule."""
    with torch.no_grad():
        logit, token = model(ids).logits[0, -1].max(0)
    rules = Rules(model)
    columns = {
        "relp-fixed-attention": sums(model, ids, int(token), rules.held(attention=True)),
        "relp": sums(model, ids, int(token), rules.held(attention=False)),
        "plain": sums(model, ids, int(token), nullcontext()),
    }
    for block, values in enumerate(zip(*columns.values(), strict=True)):
        yield {"block": block, "logit": float(logit), **dict(zip(columns, values, strict=True))}


def sums(model: Any, ids: Tensor, token: int, held: AbstractContextManager[None]) -> list[float]:
    """Σ gradient · activation over all tokens at every block's output, summed in float64."""
    embedded = model.get_input_embeddings()(ids).requires_grad_()
    with outputs_of_blocks(model) as outputs, held:
        logit = model(inputs_embeds=embedded, use_cache=False).logits[0, -1, token]
    grads = torch.autograd.grad(logit, outputs)
    pairs = zip(grads, outputs, strict=True)
    return [float((grad.double() * value.detach().double()).sum()) for grad, value in pairs]


@contextmanager
def outputs_of_blocks(model: Any) -> Iterator[list[Tensor]]:
    """Collected as they come, from the first to the last."""
    outputs: list[Tensor] = []

    def keep(_: Any, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in decoder_blocks(model)[1]]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """As CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
