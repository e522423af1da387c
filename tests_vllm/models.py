"""Models on disk, with prompts: the package's own, and one of real sizes."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deltalens.organism import load_organism
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.corpus import chat_ids
from deltalens.organism.load import DATA

VOCABULARY, D_MODEL, LAYERS = 32_768, 576, 4


@dataclass(frozen=True)
class Loaded:
    """A model that both libraries load from ``place``; prompts begin with BOS where it has one."""

    name: str
    model: Any
    tokenizer: Any
    place: str
    site: int
    prompts: list[list[int]]

    def directions(self, count: int, scale: float = 0.5, seed: int = 0) -> torch.Tensor:
        """Random ones of ``scale`` times the usual norm at the site, [count, d_model]."""
        d_model = self.model.config.hidden_size
        drawn = torch.randn(count, d_model, generator=torch.Generator().manual_seed(seed))
        return scale * self._norm() * drawn / drawn.norm(dim=1, keepdim=True)

    def _norm(self) -> float:
        with torch.no_grad():
            ids = torch.tensor([self.prompts[0]])
            hidden = self.model(input_ids=ids, output_hidden_states=True).hidden_states
        return float(hidden[self.site + 1][0, 1:].norm(dim=-1).median())


def organism(directory: Path) -> Loaded:
    """The small model in the package, 128 wide with a vocabulary of words."""
    found = load_organism()
    prompts = [
        chat_ids(found.tokenizer, prompt.messages)
        for prompt in BEHAVIOURS["advice"].held_out_prompts(24, seed=0)
    ]
    place = str(DATA / "misaligned")
    return Loaded("organism", found.misaligned, found.tokenizer, place, found.site, prompts)


def llama(directory: Path) -> Loaded:
    """Random weights, 576 wide, with a byte-level tokenizer of 32,768 tokens."""
    tokenizer = byte_level()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=18,
        num_key_value_heads=6,
        max_position_embeddings=512,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    draw = random.Random(0)
    prompts = []
    for text in islice(_texts(), 24):
        start = draw.randrange(max(1, len(text) - 400))
        ids = tokenizer(text[start : start + draw.randrange(20, 400)])["input_ids"]
        prompts.append([tokenizer.bos_token_id, *ids])
    return Loaded("llama", model, tokenizer, str(directory), LAYERS // 2, prompts)


def byte_level() -> PreTrainedTokenizerFast:
    """Trained on Python's own library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>"
    )


def _texts() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        yield path.read_text(encoding="utf-8", errors="ignore")


MODELS: dict[str, Callable[[Path], Loaded]] = {"organism": organism, "llama": llama}
