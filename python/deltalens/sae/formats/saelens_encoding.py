"""How an SAE of SAELens encodes, from its configuration of any version.

Read from the library's own classes (6.x) and its conversion of configurations from before 6.0.
BatchTopK and Matryoshka SAEs are saved by SAELens as ``jumprelu``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.errors import InputError, quoted
from deltalens.sae.encoding import (
    Activation,
    Encoding,
    Gated,
    Normalization,
    ReLU,
    Threshold,
    TopK,
)
from deltalens.sae.formats.layout import count, flag, number, place, read_config, section
from deltalens.sae.matrices import encoder_from, matrix, threshold, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

SCALER = "activation_scaler.json"
KWARGS = "model_from_pretrained_kwargs"

# Each architecture's activation; those not listed have encoders of another form.
ACTIVATIONS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "threshold",
    "batchtopk": "threshold",
    "matryoshka_batchtopk": "threshold",
    "gated": "gated",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "threshold",
    "jumprelu_skip_transcoder": "threshold",
}
NORMALIZATIONS: dict[str, Normalization] = {
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}
# Trained on centred models, as SAELens' list of SAEs says where their configurations, of versions
# that always centred, do not.
CENTRED_REPOSITORIES = (
    "GPT2-Small-SAEs-Reformatted",
    "GPT2-Small-Feature-Splitting-Experiment-Layer-8",
    "gpt2-small-mlp-out-saes",
)
# Points whose values are what is written to the residual stream, or sums of it.
WRITTEN = re.compile(r"hook_(resid_\w+|mlp_out|attn_out|embed|pos_embed|mlp_in|attn_in)$")
# Models with RMSNorm, whose weights TransformerLens does not centre though it is asked to.
WITHOUT_CENTRING = re.compile(
    r"llama|mi[sx]tral|gemma|qwen|yi-|phi-3|olmo-?2|olmoe|deepseek|granite|smollm|gpt-oss", re.I
)
SCALED = ("expected_average_only_in", "constant_scalar_rescale")


def read_encoding(weights: TensorFile, W_dec: StoredDecoder, config: dict[str, Any]) -> Encoding:
    """The encoding, or :class:`InputError` saying in one line why there is none."""
    architecture = _architecture(config)
    if architecture not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise _refused(weights, f"architecture {quoted(architecture)} is none of {known}")
    _check_finetuning(weights)
    transcodes = "transcoder" in architecture
    normalization, input_scale = _normalization(weights.path, config)
    if transcodes and normalization != "none":
        raise _refused(weights, f"a transcoder with normalize_activations = {normalization}")
    centred = _centred(weights.path, config)
    if transcodes and centred:
        raise _refused(weights, "a transcoder of a model with center_writing_weights")
    said_in = weights.path.with_name("cfg.json")
    F, d = W_dec.n_latents, W_dec.d_model
    d_in = config.get("d_in") if transcodes else d
    W_enc = encoder_from(weights, "W_enc", n_latents=F, d_in=d_in, transposed=True)
    return Encoding(
        W_enc=W_enc,
        b_enc=None if architecture == "gated" else vector(weights, "b_enc", F),
        b_dec=vector(weights, "b_dec", d),
        activation=_activation(weights, config, ACTIVATIONS[architecture], F),
        subtract_b_dec=not transcodes and flag(config, "apply_b_dec_to_input", said_in, True),
        normalization=normalization,
        input_scale=input_scale,
        rescale_by_decoder_norm=(
            architecture == "topk" and flag(config, "rescale_acts_by_decoder_norm", said_in)
        ),
        centred=centred,
        W_skip=_skip(weights, architecture, (d, W_enc.d_model)),
    )


def _refused(weights: TensorFile, reason: str) -> InputError:
    return InputError(f"{weights.path}: cannot be encoded with: {reason}")


def _architecture(config: dict[str, Any]) -> str:
    """Before 6.0 a TopK SAE was a standard one with another activation function."""
    function = config.get("activation_fn_str", config.get("activation_fn")) or "relu"
    architecture = str(config.get("architecture") or "standard")
    if architecture != "standard" or function == "relu":
        return architecture
    return "topk" if function == "topk" else f"{architecture} with {function}"


def _activation(weights: TensorFile, config: dict[str, Any], kind: str, F: int) -> Activation:
    if kind == "relu":
        return ReLU()
    if kind == "topk":
        return TopK(_k(weights.path, config, F))
    if kind == "threshold":
        return Threshold(_threshold(weights, F))
    r_mag, b_mag, b_gate = (vector(weights, name, F) for name in ("r_mag", "b_mag", "b_gate"))
    return Gated(scale=r_mag.exp(), bias=b_mag, gate_bias=b_gate)


def _threshold(weights: TensorFile, F: int) -> Tensor:
    """Checkpoints saved in the middle of training hold its logarithm."""
    if "threshold" not in weights.tensors and "log_threshold" in weights.tensors:
        return vector(weights, "log_threshold", F).exp()
    return threshold(weights, "threshold", F)


def _k(path: Path, config: dict[str, Any], F: int) -> int:
    holder = config if "k" in config else section(config, "activation_fn_kwargs")
    return count(holder, "k", path.with_name("cfg.json"), F)


def _check_finetuning(weights: TensorFile) -> None:
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in weights.tensors and not bool((weights.get(name).read() == 1).all()):
            raise _refused(weights, f"its latents were rescaled after training by {name}")


def _normalization(file: Path, config: dict[str, Any]) -> tuple[Normalization, float]:
    said = config.get("normalize_activations")
    if isinstance(said, bool):
        said = "expected_average_only_in" if said else "none"
    if said in (None, "none"):
        return "none", 1.0
    if not isinstance(said, str):
        raise InputError(f"{file}: cannot be encoded with: normalize_activations = {quoted(said)}")
    if said in NORMALIZATIONS:
        return NORMALIZATIONS[said], 1.0
    if said not in SCALED:
        raise InputError(f"{file}: cannot be encoded with: normalize_activations = {quoted(said)}")
    scaler = file.with_name(SCALER)
    if not scaler.is_file():
        raise InputError(
            f"{file}: cannot be encoded with: normalize_activations = {quoted(said)} and "
            f"the factor is "
            f'recorded nowhere; write {{"scaling_factor": √d_in / mean norm}} into {scaler.name}'
        )
    return "none", number(read_config(scaler), "scaling_factor", scaler)


def _centred(file: Path, config: dict[str, Any]) -> bool:
    """Whether the model had center_writing_weights, of all processing what changes its stream.

    fold_ln, fold_value_biases, center_unembed and refactor_factored_attn_matrices rewrite what is
    done with the residual stream and leave it as it is. All are off unless asked for.
    """
    said = {**config, **{key: value for key, value in section(config, "metadata").items() if value}}
    published = any(name in place(file) for name in CENTRED_REPOSITORIES)
    where = file.with_name("cfg.json")
    centred = flag(section(said, KWARGS), "center_writing_weights", where, published)
    point = str(said.get("hook_name") or said.get("hook_point"))
    rms = WITHOUT_CENTRING.search(str(said.get("model_name")))
    return centred and WRITTEN.search(point) is not None and rms is None


def _skip(weights: TensorFile, architecture: str, shape: tuple[int, int]) -> Tensor | None:
    return matrix(weights, "W_skip", shape) if "skip" in architecture else None
