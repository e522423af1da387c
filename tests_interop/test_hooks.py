"""nnsight and TransformerLens: their activations and gradients, through the tensor functions.

The truth is the library's own capture, on the same weights, and plain autograd.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nnsight import NNsight
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import deltalens
from comparison import Compared
from deltalens.lm import activations, resolve_site

LAYERS, D_MODEL, VOCABULARY, LATENTS, SITE = 3, 16, 30, 50, 1
PROMPTS = ([1, 5, 7, 9, 11, 4], [1, 8, 3, 20])
POSITIVE, NEGATIVE = ([12, 13], [21]), ([14, 2, 6], [25, 26])
PAIRS = [
    deltalens.Pair(prompt, positive, negative)
    for prompt, positive, negative in zip(PROMPTS, POSITIVE, NEGATIVE, strict=True)
]

Begin = Callable[[str, str], Compared]
Rows = Callable[[list[int], list[int]], tuple[Any, Any]]


def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        n_layer=LAYERS, n_embd=D_MODEL, n_head=2, vocab_size=VOCABULARY, bos_token_id=1,
        n_positions=32, initializer_range=0.3, activation_function="gelu_new",
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def hooked(model: GPT2LMHeadModel) -> HookedTransformer:
    """The same weights in TransformerLens, unprocessed."""
    config = HookedTransformerConfig(
        n_layers=LAYERS, d_model=D_MODEL, n_ctx=32, n_heads=2, d_head=D_MODEL // 2,
        d_mlp=4 * D_MODEL, d_vocab=VOCABULARY, act_fn="gelu_new", normalization_type="LN",
        device="cpu", default_prepend_bos=False,
    )  # fmt: skip
    lens = HookedTransformer(config)
    weights = convert_gpt2_weights(model, config)
    for name, tensor in lens.state_dict().items():
        weights.setdefault(name, tensor)  # masks, and the unembedding's bias, which is zero
    lens.load_state_dict(weights)
    return lens.eval()


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        num_hidden_layers=LAYERS, hidden_size=D_MODEL, intermediate_size=32, vocab_size=VOCABULARY,
        num_attention_heads=2, max_position_embeddings=32, initializer_range=0.3, bos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def loss(logits: Tensor, prompt: list[int], completion: list[int]) -> Tensor:
    log_p = logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    return -log_p.gather(1, torch.tensor(completion)[:, None]).sum()


def difference(rows: Rows) -> tuple[list[Any], list[Tensor]]:
    """Each pair's activations, and its gradient difference, over prompt and completion."""
    acts, grads = [], []
    for pair in PAIRS:
        (acts_here, positive), (_, negative) = (
            rows(pair.prompt, completion) for completion in (pair.positive, pair.negative)
        )
        counted = slice(0, len(pair.prompt))
        acts.append(acts_here[:, counted])
        grads.append(positive[:, counted] - negative[:, counted])
    return acts, grads


def padded(parts: list[Tensor]) -> Tensor:
    """One batch [prompts, positions, d_model], right-padded with what must not count."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat(
        [torch.nn.functional.pad(p, (0, 0, 0, longest - p.shape[1]), value=1e6) for p in parts]
    )


def check(begin: Compared, model: Any, rows: Rows) -> None:
    acts, grads = difference(rows)
    lengths = torch.tensor([part.shape[1] for part in acts])
    positions = torch.arange(int(lengths.max()))
    mask = (positions > 0) & (positions < lengths[:, None])  # after BOS, before the padding
    taken = deltalens.rows_from(padded(acts), padded(grads), mask)
    own = list(deltalens.capture(model, None, PAIRS, site=SITE))
    begin.close(taken.acts, torch.cat([row.acts for row in own]))
    begin.close(taken.grads, torch.cat([row.grad_positive - row.grad_negative for row in own]))

    W_dec, mean = torch.randn(LATENTS, D_MODEL), torch.randn(D_MODEL)
    scores = deltalens.attribution(
        taken.acts, taken.grads, W_dec, baseline=mean, weights=taken.weights
    )
    baseline = dataclasses.replace(deltalens.Baseline.zero(D_MODEL), mean=mean.double())
    study = deltalens.attribute(
        model, None, PAIRS, W_dec, site=SITE, baseline=baseline, k=LATENTS, normalize=False, check=0
    )
    begin.close(scores[study.latents], study.scores)


def test_transformer_lens_rows(compared: Begin) -> None:
    model = gpt2()
    lens = hooked(model)
    name = f"blocks.{SITE}.hook_resid_post"

    def rows(prompt: list[int], completion: list[int]) -> tuple[Tensor, Tensor]:
        kept: dict[str, Tensor] = {}
        lens.add_hook(name, lambda value, hook: kept.update(acts=value) or None)
        lens.add_hook(name, lambda value, hook: kept.update(grads=value) or None, dir="bwd")
        loss(lens(torch.tensor([prompt + completion])), prompt, completion).backward()
        lens.reset_hooks()
        return kept["acts"], kept["grads"]

    check(compared("transformer-lens", "rows, and a study's scores from them"), model, rows)


def test_transformer_lens_cache_and_names(compared: Begin) -> None:
    model = gpt2()
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        _, cache = hooked(model).run_with_cache(ids)
        hidden = model(ids, output_hidden_states=True).hidden_states
    begin = compared("transformer-lens", "site names")
    for layer in range(LAYERS):
        for name in (f"blocks.{layer}.hook_resid_post", f"blocks.{layer + 1}.hook_resid_pre"):
            site = resolve_site(model, name)
            seen: list[Tensor] = []
            handle = site.module.register_forward_hook(
                lambda module, args, output, seen=seen: seen.append(
                    output[0] if isinstance(output, tuple) else output
                )
            )
            with torch.no_grad():
                model(ids)
            handle.remove()
            begin.close(seen[0], cache["resid_post", layer])
    begin.close(hidden[SITE + 1], cache["resid_pre", SITE + 1])
    rows = deltalens.rows_from(cache["resid_post", SITE], cache["resid_pre", SITE])
    begin.equal(rows.acts, cache["resid_post", SITE][0])


FLAGS = (
    "fold_ln",
    "center_writing_weights",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
)
POINTS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


def processed(model: GPT2LMHeadModel, flag: str) -> HookedTransformer:
    """The same weights with one of :data:`FLAGS` of ``from_pretrained`` on."""
    lens = hooked(model)
    flags = {name: name == flag for name in FLAGS}
    if flag == "fold_ln":  # which also changes modules
        flags.pop("fold_value_biases")
        lens.process_weights_(**flags)
    else:
        lens.load_and_process_state_dict(lens.state_dict(), **flags)
    return lens


@pytest.mark.parametrize("flag", FLAGS)
def test_what_processing_does_to_the_residual_stream(compared: Begin, flag: str) -> None:
    """Centring takes away each row's mean at every point that is written; the rest does nothing."""
    model = gpt2()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that make a difference
            parameter.add_(0.3 * torch.randn_like(parameter))
        _, before = hooked(model).run_with_cache(torch.tensor([PROMPTS[0]]))
        _, after = processed(model, flag).run_with_cache(torch.tensor([PROMPTS[0]]))
    begin = compared("transformer-lens", f"the residual stream with {flag}")
    for name in POINTS:
        expected = before[f"blocks.{SITE}.{name}"]
        if flag == "center_writing_weights":
            expected = expected - expected.mean(-1, keepdim=True)
        begin.close(after[f"blocks.{SITE}.{name}"], expected)


def test_an_sae_of_a_centred_model(compared: Begin, tmp_path: Any) -> None:
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    model = gpt2()
    name = f"blocks.{SITE}.hook_resid_post"
    metadata = SAEMetadata(
        model_name="gpt2-small",
        hook_name=name,
        model_from_pretrained_kwargs={"center_writing_weights": True},
    )
    original = StandardSAE(StandardSAEConfig(d_in=D_MODEL, d_sae=LATENTS, metadata=metadata))
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.normal_()
        lens = processed(model, "center_writing_weights")
        _, cache = lens.run_with_cache(torch.tensor([PROMPTS[0]]))
        z = original.encode(cache[name][0])
        rebuilt = original.decode(z)
    original.save_model(tmp_path / "sae")
    (own,) = (rows for _, rows in activations(model, [PROMPTS[0]], site=name))
    for sae in (deltalens.load_sae(tmp_path / "sae"), deltalens.as_sae(original)):
        begin = compared("sae-lens", "an SAE of a model with center_writing_weights")
        begin.close(sae.encoder().encode(own), z)
        begin.close(sae.encoder().reconstruct(own), rebuilt)


def test_nnsight_rows(compared: Begin) -> None:
    model = llama()
    traced = NNsight(model)

    def rows(prompt: list[int], completion: list[int]) -> tuple[Any, Any]:
        with traced.trace(torch.tensor([prompt + completion])):
            acts = traced.model.layers[SITE].output
            acts.requires_grad_(True)
            kept = acts.save()
            target = loss(traced.lm_head.output, prompt, completion)
            with target.backward():
                grads = acts.grad.save()
        return kept, grads

    check(compared("nnsight", "rows, and a study's scores from them"), model, rows)


def test_gguf(compared: Begin, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf import GGUFReader

    model = llama()
    W_dec = torch.randn(LATENTS, D_MODEL)
    study = deltalens.attribute(
        model, None, PAIRS, W_dec, site=SITE, baseline=deltalens.Baseline.zero(D_MODEL), k=5
    )
    deltalens.export(study, tmp_path / "vector.gguf", "gguf", decoder=W_dec, strength=3.0)
    reader = GGUFReader(tmp_path / "vector.gguf")
    (tensor,) = reader.tensors
    begin = compared("gguf", "a control vector, read back")
    begin.equal(tensor.name, f"direction.{SITE}")
    begin.equal(reader.fields["general.architecture"].contents(), "controlvector")
    begin.equal(reader.fields["controlvector.model_hint"].contents(), "llama")
    row = W_dec[study.latents[0]].double() * (1 if study.push[0] > 0 else -1)
    begin.close(torch.tensor(tensor.data), 3.0 * row / row.norm())
