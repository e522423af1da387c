"""The names that people use for points of the residual stream, without a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from deltalens.errors import InputError

Kind = Literal[
    "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BLOCK = (
    r"(?:(?:_orig_mod|module|base_model|model|language_model|text_model|transformer|gpt_neox"
    r"|decoder)\.)*(?:layers|blocks|h)\.(\d+)"
)
_MODULE = re.compile(_BLOCK + r"(?:\.(?!output)(?P<module>\w+(?:\.(?!output)\w+)*))?(?:\.output)?")
_HOOK = re.compile(r"blocks\.(\d+)\.(?P<hook>(?:\w+\.)*hook_\w+)")
_SHORT = re.compile(r"(?:(?P<point>[a-z_]+)_)?layer_(\d+)|(\d+)")
_BY_WORD: dict[str | None, Kind] = {
    None: "hook_resid_post",
    "resid_post": "hook_resid_post",
    "resid_mid": "hook_resid_mid",
    "resid_pre": "hook_resid_pre",
}
_OWN_BY_WORD: dict[str, Kind] = {
    "mlp": "hook_mlp_out",
    "mlp_out": "hook_mlp_out",
    "attn": "hook_attn_out",
    "attn_out": "hook_attn_out",
    "attention": "hook_attn_out",
}
_OWN_BY_HOOK: dict[str, Kind] = {"mlp.hook_out": "hook_mlp_out", "attn.hook_out": "hook_attn_out"}
_HEADS = (
    "is what attention heads give before their output projection: it is neither d_model wide nor "
    "part of the residual stream"
)

# model/layer-source/latent of a Neuronpedia page: gemma-2-2b/12-gemmascope-res-16k/4093
_NEURONPEDIA = re.compile(r"(?:(?P<model>[^/\s]+)/)?(?P<layer>\d+)-(?P<source>[^/\s]+)(?:/\d+)?")
# Sources of gpt2-small that read a block's input, where those of other models read its output.
_INPUT_SOURCE = re.compile(r"res-jb|res_fs\d+-jb|res_s\w+-ajt")
_INPUT_MODEL = "gpt2-small"
_SOURCES: dict[str, Kind] = {
    "transcoder": "hook_mlp_out",
    r"resi?d?_mid": "hook_resid_mid",
    r"resi?d?": "hook_resid_post",
    "mlp": "hook_mlp_out",
    r"llamascope-att|att_\d+k-oai|att-sm": "hook_attn_out",
}
_HEAD_SOURCE = re.compile(r"gemmascope(-2)?-att\b|att-kk")


class Point(NamedTuple):
    """A point of block ``layer``.

    kind: None where the output of one of the block's modules was named, which is then ``module``.
    own: meant is what the attention or MLP module itself gives, whatever follows it in the block.
    """

    layer: int
    kind: Kind | None
    module: str | None = None
    own: bool = False


def canonical(layer: int, kind: Kind) -> tuple[int, Kind]:
    """The input of a block is the output of the block before it, where there is one."""
    if kind == "hook_resid_pre" and layer > 0:
        return layer - 1, "hook_resid_post"
    return layer, kind


def hook_name(layer: int, kind: Kind) -> str:
    """``blocks.12.hook_mlp_out``."""
    return f"blocks.{layer}.{kind}"


def saved_name(name: str) -> str:
    """The canonical name of the site that a saved baseline or run calls ``name``.

    Earlier versions saved a block's module path in the model at hand, for the block's output.
    """
    try:
        point = parse(name)
    except InputError:
        block = re.fullmatch(r"(?:\w+\.)+(\d+)", name)
        return name if block is None else hook_name(int(block[1]), "hook_resid_post")
    if point.kind is None or point.own:
        return name
    return hook_name(*canonical(point.layer, point.kind))


def parse(name: str, blocks: str = "layers") -> Point:
    """The point that ``name`` means; ``blocks`` is the module path of the model's block list.

    Raises :class:`InputError` for names of no point, saying why where that is known.
    """
    text = name.strip()
    if text.startswith(f"{blocks}."):
        text = text.replace(blocks, "layers", 1)
    for pattern, read in _READERS:
        if match := pattern.fullmatch(text):
            return read(match)
    if text == "hook_embed":
        raise InputError(
            "site 'hook_embed' is the token embeddings; where no position embeddings are added to "
            "them that is blocks.0.hook_resid_pre"
        )
    raise InputError(f"no site {name!r}")


def _hook(match: re.Match[str]) -> Point:
    layer, hook = int(match[1]), match["hook"]
    if hook in KINDS:
        return Point(layer, hook)
    if hook in _OWN_BY_HOOK:
        return Point(layer, _OWN_BY_HOOK[hook], own=True)
    why = _HEADS if hook == "attn.hook_z" else "is no point of the residual stream"
    raise InputError(f"site {match[0]!r} {why}; points are {', '.join(KINDS)}")


def _short(match: re.Match[str]) -> Point:
    layer, word = int(match[2] or match[3]), match["point"]
    if word in _OWN_BY_WORD:
        return Point(layer, _OWN_BY_WORD[word], own=True)
    if word not in _BY_WORD:
        raise InputError(f"no site {match[0]!r}")
    return Point(layer, _BY_WORD[word])


def _module(match: re.Match[str]) -> Point:
    module = match["module"]
    return Point(int(match[1]), "hook_resid_post" if module is None else None, module)


def _neuronpedia(match: re.Match[str]) -> Point:
    layer, source, name = int(match["layer"]), match["source"], match[0]
    if _HEAD_SOURCE.search(source):
        raise InputError(f"site {name!r} {_HEADS}")
    named = (kind for word, kind in _SOURCES.items() if _has_word(source, word))
    kind = next(named, None)
    if kind is None:
        raise InputError(
            f"site {name!r} is of no known point; give its hook, blocks.{layer}.hook_…"
        )
    if not _INPUT_SOURCE.fullmatch(source):
        return Point(layer, kind)
    if match["model"] is None:
        raise InputError(
            f"site {name!r} is the input of block {layer} in {_INPUT_MODEL} and its output in "
            f"other models: write the model too (MODEL/{name})"
        )
    return Point(layer, "hook_resid_pre" if match["model"] == _INPUT_MODEL else kind)


def _has_word(source: str, word: str) -> bool:
    return re.search(rf"(?<![a-z])(?:{word})(?![a-z])", source) is not None


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Point]], ...] = (
    (_SHORT, _short),
    (_HOOK, _hook),
    (_MODULE, _module),
    (_NEURONPEDIA, _neuronpedia),
)
