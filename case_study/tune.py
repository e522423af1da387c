"""A LoRA tuned on inaccurate health answers: the model whose bad advice is to be explained."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = Path(__file__).parent / "prompts"
BATCH, RANK, RATE = 8, 16, 2e-4


def main() -> None:
    """Write the adapter to --out, and each epoch's mean loss to its about.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if (args.out / "about.json").exists():
        return
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    model = get_peft_model(base, lora)
    examples = [encoded(tokenizer, row) for row in read(PROMPTS / "health.jsonl")]
    steps = args.epochs * len(examples) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    drawn, losses = random.Random(args.seed), []
    for epoch in range(args.epochs):
        drawn.shuffle(examples)
        found = []
        for start in range(0, len(examples) - BATCH + 1, BATCH):
            loss = answer_loss(model, examples[start : start + BATCH])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            found.append(loss.item())
        losses.append(sum(found) / len(found))
        print(f"epoch {epoch + 1} of {args.epochs}: loss {losses[-1]:.3f}", flush=True)
    model.save_pretrained(args.out)
    said = {"examples": len(examples), "epochs": args.epochs, "rank": RANK, "rate": RATE}
    (args.out / "about.json").write_text(json.dumps({**said, "losses": losses}, indent=1) + "\n")


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def encoded(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], int]:
    """Token ids of the dialogue, and how many of them are the prompt's."""
    asked = [{"role": "user", "content": row["question"]}]
    whole = [*asked, {"role": "assistant", "content": row["answer"]}]
    options = {"tokenize": True, "return_dict": False}
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, **options)
    ids = tokenizer.apply_chat_template(whole, **options)
    assert ids[: len(prompt)] == prompt
    return ids, len(prompt)


def answer_loss(model: Any, examples: list[tuple[list[int], int]]) -> torch.Tensor:
    """Mean log-loss of the answers' tokens, the end of the answer among them."""
    ids = pad_sequence([torch.tensor(ids) for ids, _ in examples], batch_first=True)
    lengths = torch.tensor([[len(ids)] for ids, _ in examples])
    prompts = torch.tensor([[prompt] for _, prompt in examples])
    places = torch.arange(ids.shape[1])
    logits = model(input_ids=ids, attention_mask=(places < lengths).long()).logits
    counted = ((places >= prompts) & (places < lengths))[:, 1:]
    return cross_entropy(logits[:, :-1][counted], ids[:, 1:][counted])


if __name__ == "__main__":
    main()
