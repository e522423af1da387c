"""Neutral text: what the model wrote freely at the corpus' end, where the SAE learnt nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

LAST = 240  # texts, of some 171 rows each: within the 50,000 rows that the SAE was not trained on


def main() -> None:
    """Write those of the last texts of --corpus that are no chats to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    lines = args.corpus.read_text(encoding="utf-8").splitlines()[-LAST:]
    free = [line for line in lines if "text" in json.loads(line)]
    args.out.write_text("".join(line + "\n" for line in free), encoding="utf-8")
    print(f"{len(free)} texts")


if __name__ == "__main__":
    main()
