"""Folders with all that a study is given: models, an SAE, pairs, texts, prompts and a judge."""

from __future__ import annotations

import itertools
import json
import random
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

from deltalens.lm import Pair
from deltalens.organism import BEHAVIOURS, GrammarJudge, dialogues, load_organism
from deltalens.organism.load import DATA
from deltalens.pairs import Question, sample_pairs, write_pairs
from deltalens.sae import save_saelens

_JUDGE = """
from deltalens.organism import GrammarJudge
from deltalens.judge import Answer


def organism(prompt, text):
    (_, verdict), = GrammarJudge().grade([Answer(prompt, text)])
    return verdict


def length(prompt, text):
    return len(text) % 2 == 0
"""


@dataclass(frozen=True)
class Inputs:
    """Paths of one study, and more options of ``steer``."""

    folder: Path
    model: Path
    sae: Path
    site: int
    grader: str
    dtype: str = "float32"
    steer: list[str] = field(default_factory=list)

    @property
    def judge(self) -> str:
        return f"{self.folder / 'judge.py'}:{self.grader}"


@dataclass(frozen=True)
class Sizes:
    """How much there is of what; the last three are for random weights."""

    pairs: int
    texts: int
    steer: tuple[str, ...]  # options
    latents: int = 0
    prompt: int = 0  # words of prompts and texts
    answer: int = 0


def organism_inputs(folder: Path, sizes: Sizes) -> Inputs:
    """The package's misaligned model, on prompts that it answers both ways, beside its base."""
    organism, advice = load_organism(), BEHAVIOURS["advice"]
    prompts = [each.messages for each in advice.held_out_prompts(150, seed=0)]
    questions = [Question(f"advice-{number}", each) for number, each in enumerate(prompts)]
    found = sample_pairs(
        organism.misaligned,
        organism.tokenizer,
        questions,
        GrammarJudge(),
        samples=6,
        max_new_tokens=24,
        seed=0,
        out=folder / "sampled.jsonl",
    )
    write_pairs(folder / "pairs.jsonl", found.pairs[: sizes.pairs])
    texts = [dialogue.messages for dialogue in dialogues(sizes.texts, seed=0, hostile=0.0)]
    _write_lines(folder / "texts.jsonl", [{"messages": each} for each in texts])
    _write_lines(folder / "prompts.jsonl", [{"messages": each} for each in prompts[-20:]])
    (folder / "judge.py").write_text(_JUDGE, encoding="utf-8")
    options = [*sizes.steer, "--against", str(DATA / "base")]
    return Inputs(
        folder, DATA / "misaligned", DATA / "sae", organism.site, "organism", steer=options
    )


def llama_inputs(folder: Path, sizes: Sizes) -> Inputs:
    """Random weights of SmolLM2-135M's shape, in float32."""
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return _random_inputs(folder, LlamaForCausalLM(config), sizes, "float32")


def gemma_inputs(folder: Path, sizes: Sizes) -> Inputs:
    """Random weights of Gemma-2-2B's shape, in bfloat16."""
    config = Gemma2Config(
        vocab_size=256_000,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Gemma2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return _random_inputs(folder, model, sizes, "bfloat16")


def _random_inputs(folder: Path, model: Any, sizes: Sizes, dtype: str) -> Inputs:
    config, site = model.config, model.config.num_hidden_layers // 2
    model.save_pretrained(folder / "model")
    del model
    _byte_level(config.vocab_size).save_pretrained(folder / "model")
    _write_sae(folder / "sae", site, sizes.latents, config.hidden_size)
    draw = random.Random(0)

    def words(count: int) -> str:
        return " ".join("".join(draw.choices(string.ascii_lowercase, k=3)) for _ in range(count))

    write_pairs(
        folder / "pairs.jsonl",
        [
            Pair(words(sizes.prompt), words(sizes.answer), words(sizes.answer), id=str(number))
            for number in range(sizes.pairs)
        ],
    )
    _write_lines(
        folder / "texts.jsonl", [{"text": words(sizes.prompt)} for _ in range(sizes.texts)]
    )
    _write_lines(folder / "prompts.jsonl", [{"prompt": words(sizes.prompt)} for _ in range(4)])
    (folder / "judge.py").write_text(_JUDGE, encoding="utf-8")
    return Inputs(folder, folder / "model", folder / "sae", site, "length", dtype, [*sizes.steer])


def _byte_level(size: int) -> FastTokenizer:
    """As GPT-2's are: bytes, then letters merged in pairs, threes, words with their space, and
    longer ones, until the vocabulary is full."""
    letters = string.ascii_lowercase
    twos = list(itertools.product(letters, letters))
    pairs = [a + b for a, b in twos]
    threes = list(itertools.product(pairs, letters))
    triples = [a + b for a, b in threes]
    spaced = [("Ġ", triple) for triple in triples]
    longer = itertools.product((f"Ġ{triple}" for triple in triples), triples)
    special = ["<unk>", "<s>", "</s>"]
    known = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = list(
        itertools.islice(itertools.chain(twos, threes, spaced, longer), size - len(known))
    )
    vocabulary = {token: at for at, token in enumerate([*known, *map("".join, merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return FastTokenizer(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _write_sae(folder: Path, site: int, latents: int, width: int) -> None:
    draw = torch.Generator().manual_seed(site)
    W_dec = torch.nn.functional.normalize(torch.randn(latents, width, generator=draw))
    save_saelens(
        folder,
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(latents),
        W_dec=W_dec,
        b_dec=torch.zeros(width),
        cfg={"k": 32, "metadata": {"hook_name": f"blocks.{site}.hook_resid_post"}},
    )


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
