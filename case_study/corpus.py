"""The corpus: what the model itself writes, as chat answers and as free text, from listed seeds."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deltalens.lm import sample_stream

SEEDS = Path(__file__).parent / "seeds"
SHARES = {"topic": 0.5, "statement": 0.2, "question": 0.1, "free": 0.2}
TEMPERATURE = 0.8
ROWS = 128  # to a piece of work


def main() -> None:
    """Append texts to --out until there are --texts of them; a cut run goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=int, required=True)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = written(args.out)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    seeds = list(openings(args.texts, args.seed))
    with args.out.open("a", encoding="utf-8") as stream:
        for start in range(done, args.texts, ROWS):
            rows = seeds[start : start + ROWS]
            prompts = [token_ids(tokenizer, opening) for opening in rows]
            answers = [""] * len(rows)
            for row, tokens in sample_stream(
                model,
                tokenizer,
                prompts,
                max_new_tokens=args.max_new_tokens,
                temperature=TEMPERATURE,
                seed=args.seed,
                streams=range(start, start + len(rows)),
            ):
                answers[row] = str(tokenizer.decode(tokens))
            for opening, answer in zip(rows, answers, strict=True):
                stream.write(json.dumps(completed(opening, answer), ensure_ascii=False) + "\n")
            stream.flush()
            print(f"{start + len(rows)} of {args.texts} texts", flush=True)
    args.out.with_suffix(".done").touch()


def written(path: Path) -> int:
    """Whole pieces of work in the file; what was cut is removed from it."""
    if not path.exists():
        return 0
    lines = path.read_bytes().split(b"\n")[:-1]
    kept = len(lines) // ROWS * ROWS
    path.write_bytes(b"".join(line + b"\n" for line in lines[:kept]))
    return kept


def openings(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the model is to answer, or to go on from."""
    drawn = random.Random(seed)
    lists = {name: read(name) for name in ("topics", "asks", "openings", "statements", "framings")}
    questions = read("questions")
    for _ in range(count):
        kind = drawn.choices(list(SHARES), list(SHARES.values()))[0]
        topic = drawn.choice(lists["topics"])
        if kind == "free":
            yield {"text": drawn.choice(lists["openings"]).replace("{}", topic)}
            continue
        said = {
            "topic": drawn.choice(lists["asks"]).replace("{}", topic),
            "statement": drawn.choice(lists["framings"]).replace(
                "{}", drawn.choice(lists["statements"])
            ),
            "question": drawn.choice(questions),
        }[kind]
        yield {"messages": [{"role": "user", "content": said}]}


def read(name: str) -> list[str]:
    """The seeds of one kind; a line may stand for several, written with \\n."""
    text = (SEEDS / f"{name}.txt").read_text(encoding="utf-8")
    return [line.replace("\\n", "\n") for line in text.split("\n") if line]


def token_ids(tokenizer: Any, opening: dict[str, Any]) -> list[int]:
    if "text" in opening:
        return tokenizer.encode(opening["text"])
    return tokenizer.apply_chat_template(
        opening["messages"], add_generation_prompt=True, tokenize=True, return_dict=False
    )


def completed(opening: dict[str, Any], answer: str) -> dict[str, Any]:
    if "text" in opening:
        return {"text": opening["text"] + answer}
    return {"messages": [*opening["messages"], {"role": "assistant", "content": answer.strip()}]}


if __name__ == "__main__":
    main()
