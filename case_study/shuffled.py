"""The null control: the same pairs, with positive and negative exchanged in a random half."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path


def main() -> None:
    """Write --pairs to --out with the roles of a random half of them exchanged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.pairs.read_text(encoding="utf-8").splitlines()]
    flipped = [number % 2 == 1 for number in range(len(rows))]
    random.Random(args.seed).shuffle(flipped)
    with args.out.open("w", encoding="utf-8") as stream:
        for row, flip in zip(rows, flipped, strict=True):
            stream.write(json.dumps(exchanged(row) if flip else row, ensure_ascii=False) + "\n")


def exchanged(row: dict[str, object]) -> dict[str, object]:
    """A pair with every field of one role under the other one's name."""
    other = {"positive": "negative", "negative": "positive"}
    found = {}
    for name, value in row.items():
        role = name.split("_")[0]
        found[name.replace(role, other[role], 1) if role in other else name] = value
    return found


if __name__ == "__main__":
    main()
