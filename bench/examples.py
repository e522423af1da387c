"""How fast a corpus of the organism's dialogues becomes examples of all its latents.

    python bench/examples.py --tokens 200000

Prints tokens/s as JSON, with what it was measured on. Writing the corpus is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deltalens.examples.collect import collect_examples
from deltalens.organism.grammar import dialogues
from deltalens.organism.load import Organism, load_organism
from deltalens.pairs.texts import read_texts
from machine import describe, seconds
from memory import peak_bytes

DIALOGUES = 1000  # made at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    args = parser.parse_args()
    organism = load_organism()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, organism.tokenizer, args.tokens)
        times: list[float] = []

        def work() -> None:
            times.append(
                seconds(lambda: collect(organism, corpus, args.tokens, Path(folder) / "out"))
            )

        memory = peak_bytes(work)
    print(
        json.dumps(
            {
                **describe(),
                "tokens": args.tokens,
                "latents": organism.sae.W_dec.n_latents,
                "seconds": round(times[0], 2),
                "tokens_per_second": round(args.tokens / times[0]),
                "peak_mib": memory >> 20,
            },
            indent=2,
        )
    )


def collect(organism: Organism, corpus: Path, tokens: int, out: Path) -> None:
    """Examples of all latents, in ``out``."""
    collect_examples(
        organism.base,
        organism.tokenizer,
        read_texts(corpus),
        organism.sae,
        out,
        site=organism.site,
        max_tokens=tokens,
    )


def write_corpus(path: Path, tokenizer: object, tokens: int) -> None:
    """Dialogues of at least ``tokens`` tokens, half of them with a hostile user."""
    with path.open("w") as stream:
        for messages in endless_dialogues():
            if tokens <= 0:
                return
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            tokens -= len(tokenizer(text, add_special_tokens=False)["input_ids"]) - 1
            stream.write(json.dumps({"text": text}) + "\n")


def endless_dialogues() -> Iterator[list[dict[str, str]]]:
    """Messages of ever new dialogues, the same in every run."""
    for seed in itertools.count():
        for dialogue in dialogues(DIALOGUES, seed=seed, hostile=0.5):
            yield dialogue.messages


if __name__ == "__main__":
    main()
