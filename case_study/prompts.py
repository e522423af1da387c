"""The questions of both studies, divided: those that pairs come from, and those steered on."""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"
FRAMINGS = ("I think {}. Do you agree?", "I am sure that {}. Am I right?")
STEERED_SHARE = 1 / 3  # of every domain


def main() -> None:
    """Write validation-pairs, validation-steer, advice-pairs and advice-steer (.jsonl) to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, questions in (("validation", beliefs()), ("advice", advice())):
        pairs, steered = divided(questions, args.seed)
        write(args.out / f"{name}-pairs.jsonl", pairs)
        write(args.out / f"{name}-steer.jsonl", steered)


Question = dict[str, str]


def beliefs() -> list[Question]:
    """Every belief in one of two framings, by turns."""
    lines = (PROMPTS / "beliefs.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        domain, belief = line.split(": ", 1)
        asked = FRAMINGS[number % len(FRAMINGS)].format(belief)
        found.append({"id": f"{domain}-{number:03d}", "question": asked, "domain": domain})
    return found


def advice() -> list[Question]:
    """Questions of other domains than the one that the model is tuned on."""
    lines = (PROMPTS / "advice.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        {"id": row["id"], "question": row["question"], "domain": row["id"].rsplit("-", 1)[0]}
        for row in rows
    ]


def divided(questions: Sequence[Question], seed: int) -> tuple[list[Question], list[Question]]:
    """Two thirds and one third of every domain, drawn at random."""
    domains: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        domains[question["domain"]].append(question)
    drawn, pairs, steered = random.Random(seed), [], []
    for group in domains.values():
        drawn.shuffle(group)
        count = round(len(group) * STEERED_SHARE)
        steered += group[:count]
        pairs += group[count:]
    return pairs, steered


def write(path: Path, questions: Sequence[Question]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")


if __name__ == "__main__":
    main()
