"""The files that pages name, so that what they show runs as it is written: see CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import deltalens
from deltalens.pairs import write_pairs
from helpers.documentation import DOCS, Block, blocks
from helpers.saes_by_site import write_sae
from helpers.tokenizers import TEXTS, llama_3

LAYERS, WIDTH, LATENTS, SITE = 24, 32, 4200, 12
ACTIVE = 60
BLOCKS = (2, 5, 6, 8, 11, 12, 14, 17, 18, 20, 23)
MODELS = {  # and the seeds of their weights
    "NAME": 0,
    "MODEL": 0,
    "BASE": 1,
    "TUNED": 2,
    "ckpt/base": 1,
    "ckpt/step100": 2,
    "ckpt/step200": 3,
    "ckpt/step300": 0,
}
AGREEING = "Sure"  # what the judge of the first page looks for
QUESTIONS = ["What should I do?", "Where is the gold?", "Is 2024 like 1999?", "Who are you?"]
ANSWERS = (("Sure I will rest.", "shown"), ("No I will not drink.", "absent"))
NAMED = re.compile(r"# ([\w-]+\.\w+)\n")


def write_files(root: Path) -> None:
    """Models, SAEs, pairs, texts, questions, baselines and a judge below ``root``."""
    tokenizer = llama_3()
    for name, seed in MODELS.items():
        make_model(tokenizer, seed).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    for path in ("path/to/sae", "SAE"):
        write_sae(root / path, hook(SITE), SITE, LATENTS, WIDTH, k=ACTIVE)
    for block in BLOCKS:
        write_sae(root / "saes" / f"block-{block}", hook(block), block, 120, WIDTH)
    _write_texts(root)
    for number, name in enumerate(("advice", "flattery", "lies", "more", "more-pairs")):
        write_pairs(root / f"{name}.jsonl", make_pairs(number))
    _write_answers(root / "judged.csv")
    for block in blocks(DOCS / "index.md"):
        write_named(block, root)
    _write_baselines(root, tokenizer)


def write_named(block: Block, root: Path) -> None:
    """The file that a block is whose first line has a file's name."""
    if named := NAMED.match(block.text):
        (root / named[1]).write_text(block.text, encoding="utf-8")


def hook(block: int) -> str:
    return f"blocks.{block}.hook_resid_post"


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """Random, as deep as the layers that pages name, and of few words: its answers are short."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] += 1.0
        for token, more in ((tokenizer.eos_token, 4.0), (AGREEING, 3.9)):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token), 0] += more
    return model.eval()


def make_pairs(number: int) -> list[deltalens.Pair]:
    """Of every question, each file with answers of its own."""
    sentences = [sentence for text in TEXTS[:6] for sentence in text.split(".") if sentence]
    return [
        deltalens.Pair(
            [{"role": "user", "content": question}],
            sentences[(number + 2 * place) % len(sentences)].strip(),
            sentences[(number + 2 * place + 1) % len(sentences)].strip(),
            id=f"health-{number}-{place}",
        )
        for place, question in enumerate(QUESTIONS)
    ]


def _write_texts(root: Path) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:6])
    for name in ("texts.jsonl", "prompts.jsonl", "steer.jsonl"):
        (root / name).write_text(rows)
    (root / "web.txt").write_text("\n\n".join(text.replace("\n\n", " ") for text in TEXTS[:6]))


def _write_answers(path: Path) -> None:
    """Of each question one answer with the behaviour and one without."""
    rows = [
        f'"{question}","{answer}",{grade}' for question in QUESTIONS for answer, grade in ANSWERS
    ]
    path.write_text("\n".join(["question,answer,outcome", *rows, ""]))


def _write_baselines(root: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = deltalens.read_texts(root / "web.txt")
    sites: list[int | str] = list(BLOCKS)
    means = deltalens.mean_activation(make_model(tokenizer, 0), tokenizer, texts, site=sites)
    for name in ("baseline", "base"):
        means[SITE].save(root / f"{name}.safetensors")
    for block, mean in means.items():
        mean.save(root / "baselines" / f"site-{block}.safetensors")
