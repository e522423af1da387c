"""Residual rows of the corpus at one site, without attention sinks, as a file of float16 rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deltalens.lm.activations import activations
from deltalens.pairs import read_texts

MASSIVE = 10  # times the median norm


def main() -> None:
    """Write --out (raw float16 [rows, d_model]) and --out with .json beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--site", type=int, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    about = args.out.with_suffix(".json")
    if about.exists():
        return
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    texts = read_texts(args.texts)
    limit, tokens, kept = None, 0, 0
    with args.out.open("wb") as stream:
        for _, rows in activations(
            model, sequences(tokenizer, texts), site=args.site, progress=True
        ):
            norms = rows.norm(dim=1)
            limit = MASSIVE * float(norms[1:].median()) if limit is None else limit
            counted = norms < limit
            counted[0] = False  # a sequence's first token is a sink in this model
            stream.write(rows[counted].half().numpy().tobytes())
            tokens, kept = tokens + len(rows), kept + int(counted.sum())
    said = {"tokens": tokens, "rows": kept, "limit": limit, "d_model": rows.shape[1]}
    about.write_text(json.dumps(said, indent=1) + "\n")
    print(said)


def sequences(tokenizer: Any, texts: Any) -> Iterator[list[int]]:
    for text in texts:
        if isinstance(text, str):
            yield tokenizer.encode(text)
        else:
            yield tokenizer.apply_chat_template(text, tokenize=True, return_dict=False)


def rows_of(path: Path) -> np.memmap[Any, Any]:
    """What :func:`main` has written, float16 [rows, d_model]."""
    said = json.loads(path.with_suffix(".json").read_text())
    return np.memmap(path, np.float16, "r", shape=(said["rows"], said["d_model"]))


if __name__ == "__main__":
    main()
