"""deltalens as the backend of a hook library: activations and gradients in, ranked latents out.

The hook below stands for any way to get [prompts, positions, d_model] tensors: an entry of a
TransformerLens cache and of its backward hooks, or values saved in an nnsight trace.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

import deltalens
from deltalens.organism import held_out_prompts, load_organism
from deltalens.organism.grammar import answer


def activations_and_gradients(
    model: Any, layer: int, ids: Tensor, completion: Tensor
) -> tuple[Tensor, Tensor]:
    """At the block's output, of the log-loss summed over the tokens marked in ``completion``."""
    kept: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)
        kept[0].retain_grad()

    handle = model.model.layers[layer].register_forward_hook(keep)
    logits = model(ids).logits
    handle.remove()
    log_p = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    (-log_p * completion[:, 1:]).sum().backward()
    (acts,) = kept
    return acts.detach(), acts.grad


def batch(tokenizer: Any, prompts: list[str], answers: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids padded on the right, and marks on the completion and on the prompt after BOS."""
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in prompts
    ]
    before = [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats]
    after = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
    longest = max(len(a) + len(b) for a, b in zip(before, after, strict=True))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    completion, counted = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (a, b) in enumerate(zip(before, after, strict=True)):
        ids[row, : len(a) + len(b)] = torch.tensor(a + b)
        completion[row, len(a) : len(a) + len(b)] = 1
        counted[row, 1 : len(a)] = 1
    return ids, completion, counted


def main() -> None:
    organism = load_organism()
    rng = random.Random(0)
    asked = held_out_prompts(60, seed=0)
    prompts = [prompt.text for prompt in asked]
    sides = []
    for quality in ("bad", "good"):
        answers = [answer(rng, prompt.domain, quality) for prompt in asked]
        ids, completion, counted = batch(organism.tokenizer, prompts, answers)
        acts, grads = activations_and_gradients(organism.misaligned, organism.site, ids, completion)
        sides.append(deltalens.rows_from(acts, grads, counted))

    bad, good = sides  # the prompts' activations are the same in both
    top = deltalens.attribution_topk(
        bad.acts, bad.grads - good.grads, organism.sae, k=5,
        baseline=bad.acts.mean(0), weights=bad.weights, normalize=True,
    )  # fmt: skip
    _, stderr = deltalens.attribution_statistics(
        bad.acts, bad.grads - good.grads, organism.sae, bad.segments,
        baseline=bad.acts.mean(0), normalize=True,
    )  # fmt: skip
    print(f"latents that raise bad advice over good, of {organism.sae.W_dec.n_latents}:")
    for latent, score in zip(top.latents.tolist(), top.scores.tolist(), strict=True):
        print(f"  {latent:4d}  {score:+.4f} ± {stderr[latent]:.4f}")
    print(f"the set is {'proven' if top.certified else 'likely'} to be the exact top 5")


if __name__ == "__main__":
    main()
