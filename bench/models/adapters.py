"""One small Llama under every kind of adapter that PEFT has, every number of it random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from families import randomised
from shrink import shrunk
from trial import Subject

KIND = "adapters"
LINEAR = "all-linear"
ATTENTION = ["q_proj", "v_proj"]


def subjects() -> Iterator[tuple[str, str, Callable[[], Subject]]]:
    """(kind, name, how to build it)."""
    for name, config in _configurations().items():
        yield KIND, name, partial(_adapted, config)
    for name, make in _states().items():
        yield KIND, name, partial(_subject, make)


def llama(**given: Any) -> Any:
    """The base, the same weights each time."""
    config = shrunk(LlamaConfig, **given)
    return randomised(lambda: LlamaForCausalLM(config), "llama")


def _lora(**given: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "target_modules": LINEAR, "task_type": "CAUSAL_LM", **given})


def _configurations() -> dict[str, Any]:
    target = {"target_modules": LINEAR, "task_type": "CAUSAL_LM"}
    prompt = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
    return {
        "LoRA": _lora(),
        "LoRA, rank-stabilised": _lora(use_rslora=True),
        "LoRA on lm_head": _lora(target_modules=[*ATTENTION, "lm_head"]),
        "LoRA on embed_tokens": _lora(target_modules=[*ATTENTION, "embed_tokens"]),
        "LoRA with trainable tokens": _lora(target_modules=ATTENTION, trainable_token_indices=[5]),
        "LoRA with modules_to_save": _lora(
            target_modules=ATTENTION, modules_to_save=["lm_head", "embed_tokens"]
        ),
        "LoRA with biases": _lora(bias="lora_only"),
        "DoRA": _lora(use_dora=True),
        "AdaLoRA": peft.AdaLoraConfig(total_step=10, init_r=4, target_r=2, **target),
        "IA3": peft.IA3Config(feedforward_modules=[], **{**target, "target_modules": ATTENTION}),
        "LoHa": peft.LoHaConfig(r=4, **target),
        "LoKr": peft.LoKrConfig(r=4, **target),
        "VeRA": peft.VeraConfig(r=4, **{**target, "target_modules": ["q_proj", "o_proj"]}),
        "OFT": peft.OFTConfig(oft_block_size=8, **target),
        "BOFT": peft.BOFTConfig(boft_block_size=4, **{**target, "target_modules": ATTENTION}),
        "FourierFT": peft.FourierFTConfig(n_frequency=20, **target),
        "HRA": peft.HRAConfig(r=2, **target),
        "LN tuning": peft.LNTuningConfig(task_type="CAUSAL_LM"),
        "trainable tokens": peft.TrainableTokensConfig(token_indices=[5, 6], task_type="CAUSAL_LM"),
        "prefix tuning": peft.PrefixTuningConfig(**prompt),
        "prompt tuning": peft.PromptTuningConfig(**prompt),
        "p-tuning": peft.PromptEncoderConfig(encoder_hidden_size=16, **prompt),
    }


def _adapted(config: Any) -> Subject:
    model = peft.get_peft_model(llama(), config)
    _stir(model)
    return Subject(model.eval())


def _stir(model: Any) -> None:
    """Give every number that the adapter learns a value that matters."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def _subject(make: Callable[[], Any]) -> Subject:
    return Subject(make().eval())


def _states() -> dict[str, Callable[[], Any]]:
    return {
        "two LoRAs, the second active": _second_active,
        "two LoRAs, both active": _both_active,
        "LoRA, scaled": _scaled,
        "LoRA, merged in place": lambda: _changed(lambda model: model.merge_adapter()),
        "LoRA, merged and unloaded": lambda: lora_model().merge_and_unload(),
        "LoRA, disabled": lambda: _changed(lambda model: model.base_model.disable_adapter_layers()),
        "LoRA injected into the base": _injected,
        "LoRA on a mixture of experts": _on_experts,
    }


def lora_model() -> Any:
    """The base under a LoRA on every linear layer."""
    model = peft.get_peft_model(llama(), _lora())
    _stir(model)
    return model


def _changed(change: Callable[[Any], Any]) -> Any:
    model = lora_model()
    change(model)
    return model


def _second_active() -> Any:
    model = lora_model()
    model.add_adapter("second", _lora(r=2))
    model.set_adapter("second")
    _stir(model)
    return model


def _both_active() -> Any:
    model = _second_active()
    model.base_model.set_adapter(["default", "second"])
    return model


def _scaled() -> Any:
    def scale(model: Any) -> None:
        for module in model.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(0.3)

    return _changed(scale)


def _injected() -> Any:
    model = peft.inject_adapter_in_model(_lora(target_modules=ATTENTION), llama())
    _stir(model)
    return model


def _on_experts() -> Any:
    base = randomised(lambda: MixtralForCausalLM(shrunk(MixtralConfig)), "mixtral")
    model = peft.get_peft_model(base, _lora(target_modules=ATTENTION))
    _stir(model)
    return model
