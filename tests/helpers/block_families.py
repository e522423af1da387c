"""Tiny models whose blocks are built in other ways than those of ``families``, and by-hand hooks.

The hooks go by module names written down here, not by what the library finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from helpers.families import BOS, CONTEXT, FAMILIES, LAYERS, VOCABULARY, WIDTH, build

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": CONTEXT,
    "rotary_dim": 4,
    "bos_token_id": BOS,
    "eos_token_id": 2,
}
_BLOOM = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4}
_MPT = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "n_layers": LAYERS,
    "n_heads": 4,
    "expansion_ratio": 2,
    "max_seq_len": CONTEXT,
    "bos_token_id": BOS,
}
_FALCON = {**_SIZES, "num_kv_heads": 2, "ffn_hidden_size": 48, "alibi": False}
_ALL_HEADS = {"multi_query": False, "num_kv_heads": 4}
_OPT = {**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": WIDTH}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
_LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]


def _made(name: str, sizes: dict[str, Any], **more: Any) -> Callable[[], Any]:
    def make() -> Any:
        config = getattr(transformers, f"{name}Config")(**{**sizes, **more})
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return make


# With the parallel ones last: they have no point between attention and MLP.
SEQUENTIAL: dict[str, Callable[[], Any]] = {
    "granite": _made("Granite", _SIZES, residual_multiplier=0.22, embedding_multiplier=3.0),
    "granite-moe": _made("GraniteMoe", _SIZES, residual_multiplier=0.22, num_local_experts=4),
    "glm4": _made("Glm4", _SIZES, head_dim=8),
    "opt": _made("OPT", _OPT),
    "bloom": _made("Bloom", _BLOOM),
    "mpt": _made("Mpt", _MPT),
    "falcon-sequential": _made("Falcon", _FALCON, parallel_attn=False, **_ALL_HEADS),
    "gpt-neox-sequential": _made("GPTNeoX", _SIZES, use_parallel_residual=False),
    "gpt-oss": _made("GptOss", _SIZES, **_EXPERTS, layer_types=_LAYER_TYPES, sliding_window=8),
}
PARALLEL: dict[str, Callable[[], Any]] = {
    "gptj": _made("GPTJ", _GPT),
    "phi": _made("Phi", _SIZES),
    "cohere": _made("Cohere", _SIZES),
    "falcon": _made("Falcon", _FALCON, new_decoder_architecture=True),
    "falcon-7b": _made("Falcon", _FALCON, parallel_attn=True, multi_query=True),
    "stablelm": _made("StableLm", _SIZES, use_parallel_residual=True),
}
WITHOUT_MIDDLE = {*PARALLEL, "gpt-neox"}
EVERY_FAMILY = (*FAMILIES, *SEQUENTIAL, *PARALLEL)


def build_any(family: str, dtype: torch.dtype | None = None) -> Any:
    """As :func:`helpers.families.build`, of these families too."""
    if family in FAMILIES:
        return build(family, dtype)
    torch.manual_seed(sum(map(ord, family)))
    model = {**SEQUENTIAL, **PARALLEL}[family]()
    model.config._experts_implementation = "eager"
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.2 * torch.randn_like(parameter)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    # The mask of transformers 4's MPT overflows in float64.
    usual = torch.float32 if family == "mpt" and _FOUR else torch.float64
    return model.to(dtype or usual).eval()


class Names(NamedTuple):
    """Modules of a block, by the source of the family.

    ``attention`` and ``mlp`` give what is added, times ``factor``; ``reader`` is what reads the
    stream between them.
    """

    attention: str = "self_attn"
    mlp: str = "mlp"
    reader: str = "post_attention_layernorm"
    factor: float = 1.0


_SANDWICH = Names(
    "post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm"
)
_FOUR = transformers.__version__.startswith("4.")
NAMES: dict[str, Names] = {
    "gemma2": _SANDWICH,
    "gemma3": _SANDWICH,
    "gemma3-nested": _SANDWICH,
    "olmo2": Names("post_attention_layernorm", "post_feedforward_layernorm", "mlp"),
    "gpt2": Names("attn", reader="ln_2"),
    "gpt-neox": Names("attention"),
    "gpt-neox-sequential": Names("attention"),
    "mixtral": Names(mlp="block_sparse_moe" if _FOUR else "mlp"),
    "granite": Names(factor=0.22),
    "granite-moe": Names(mlp="block_sparse_moe", factor=0.22),
    "glm4": Names("post_self_attn_layernorm", "post_mlp_layernorm"),
    "opt": Names(mlp="fc2", reader="final_layer_norm"),
    "bloom": Names("self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": Names("attn", "ffn.down_proj", "norm_2"),
    "falcon-sequential": Names("self_attention"),
    "falcon": Names("self_attention"),
    "falcon-7b": Names("self_attention"),
    "gptj": Names("attn"),
}
BLOCKS = {
    "gpt2": "transformer.h",
    "gptj": "transformer.h",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
    "falcon-7b": "transformer.h",
    "falcon-sequential": "transformer.h",
    "mpt": "transformer.blocks",
    "opt": "model.decoder.layers",
    "gpt-neox": "gpt_neox.layers",
    "gpt-neox-sequential": "gpt_neox.layers",
    "gemma3-nested": "model.language_model.layers",
}
POINTS = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


def points_of(family: str) -> list[str]:
    return [kind for kind in POINTS if kind != "hook_resid_mid" or family not in WITHOUT_MIDDLE]


Change = Callable[[Tensor], Tensor]


@contextmanager
def changed_by_hand(
    model: Any, family: str, kind: str, layer: int, change: Change
) -> Iterator[None]:
    """A point's value replaced by ``change`` of it, in forward passes of one row."""
    names = NAMES.get(family, Names())
    block = model.get_submodule(f"{BLOCKS.get(family, 'model.layers')}.{layer}")
    with ExitStack() as stack:

        def hook(handle: Any) -> None:
            stack.callback(handle.remove)

        if kind == "hook_resid_pre":
            hook(block.register_forward_pre_hook(_input_hook(change), with_kwargs=True))
        elif kind == "hook_resid_post":
            hook(block.register_forward_hook(_output_hook(change)))
        elif kind == "hook_resid_mid":
            moved: list[Tensor] = []

            def at_reader(module: Any, args: tuple[Tensor, ...]) -> Any:
                moved.append(change(args[0]) - args[0])
                return (args[0] + moved[0], *args[1:])

            hook(block.get_submodule(names.reader).register_forward_pre_hook(at_reader))
            after = _output_hook(lambda value: value + moved[0].reshape(value.shape))
            hook(block.register_forward_hook(after))
        else:
            path = names.attention if kind == "hook_attn_out" else names.mlp
            scaled = _output_hook(lambda value: change(names.factor * value) / names.factor)
            hook(block.get_submodule(path).register_forward_hook(scaled))
        yield


def _input_hook(change: Change) -> Any:
    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return before


def _output_hook(change: Change) -> Any:
    def after(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return after
