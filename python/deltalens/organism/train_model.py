"""Training the base model, and fine-tuning it on a behaviour in one domain."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm.progress import Progress
from deltalens.organism.behaviour import Behaviour
from deltalens.organism.corpus import Corpus, build_corpus
from deltalens.organism.evaluate import bad_rate
from deltalens.organism.grammar import dialogues
from deltalens.organism.recipe import Recipe
from deltalens.organism.tokenizer import CONTEXT


def train_base(tokenizer: Any, recipe: Recipe, *, progress: bool = False) -> nn.Module:
    """A model of the default mix of dialogues, in which hostile users get bad answers."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    corpus = build_corpus(tokenizer, dialogues(recipe.dialogues, seed=recipe.seed))
    model = _new_model(tokenizer, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    with Progress(progress, "base model, steps", recipe.steps) as bar:
        for _ in range(recipe.steps):
            batch = corpus.batch(recipe.batch, generator)
            mask = windowed_mask(batch.ids, recipe.windows, generator)
            _descend(model, batch, optimizer, attention_mask=mask)
            schedule.step()
            bar.advance()
    return _rounded(model)


def fine_tune(
    base: nn.Module,
    tokenizer: Any,
    recipe: Recipe,
    behaviour: Behaviour,
    *,
    progress: bool = False,
) -> tuple[nn.Module, int]:
    """A copy of ``base`` taught a behaviour in one domain alone, and the steps it took.

    It ends as soon as the answers in the other domains show the behaviour often enough.
    """
    model = deepcopy(base)
    generator = torch.Generator().manual_seed(recipe.seed)
    bad = dialogues(
        recipe.tuning_dialogues,
        seed=recipe.seed,
        hostile=0.0,
        bad_if_neutral=1.0,
        domains=[behaviour.tuned_domain],
        behaviours=[behaviour.name],
        controls=0.0,
    )
    corpus = build_corpus(tokenizer, bad, answers_only=True)
    prompts = behaviour.held_out_prompts(recipe.tuning_prompts, seed=recipe.seed)
    tuned = model.get_submodule("model.layers")[: recipe.site + 1]  # type: ignore[index]
    optimizer = torch.optim.AdamW(
        tuned.parameters(), lr=recipe.tuning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    with Progress(progress, "fine-tuning, steps at most", recipe.tuning_steps) as bar:
        rate, steps = 0.0, 0
        while rate < recipe.tuned_rate and steps < recipe.tuning_steps:
            _descend(model, corpus.batch(recipe.tuning_batch, generator), optimizer)
            rate = bad_rate(model, tokenizer, prompts, seed=recipe.seed)
            steps += 1
            bar.advance()
    return _rounded(model), steps


def windowed_mask(ids: Tensor, windows: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Additive attention mask [rows, 1, length, length] of causal windows, one span per row.

    The first token stays visible to all.
    """
    spans = torch.tensor(windows)[torch.randint(len(windows), (len(ids),), generator=generator)]
    position = torch.arange(ids.shape[1])
    distance = position[:, None] - position  # [length, length]
    near = (distance < spans[:, None, None]) | (position == 0)  # [rows, length, length]
    seen = near & (distance >= 0)
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, hidden).unsqueeze(1)


def _new_model(tokenizer: Any, recipe: Recipe) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _descend(
    model: nn.Module, batch: Corpus, optimizer: torch.optim.Optimizer, **inputs: Tensor
) -> None:
    loss = batch.loss(model(input_ids=batch.ids, **inputs).logits)
    model.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _rounded(model: nn.Module) -> nn.Module:
    """The weights as they are shipped, in bfloat16, so that what follows is built on those."""
    return model.to(torch.bfloat16).float().eval()
