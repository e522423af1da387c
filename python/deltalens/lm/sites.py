"""Where in the model: a point of the residual stream, under the names people use for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from deltalens.errors import InputError
from deltalens.lm.points.names import Kind, Point, canonical, hook_name, parse
from deltalens.lm.points.parts import Part, Parts, block_parts


@dataclass(frozen=True)
class Site:
    """A point of decoder block ``layer``, ``d_model`` wide; equal to the same point elsewhere.

    * ``hook_resid_post``: the block's output: the residual stream, before any final norm.
    * ``hook_resid_pre``: the input of block 0; that of others is the output of the block before.
    * ``hook_attn_out``, ``hook_mlp_out``: what attention and MLP add to the residual stream, after
      norms and factors that follow them in the block.
    * ``hook_resid_mid``: the block's input with attention added.

    ``path`` is the module path of the block, or of the module that adds, in the model at hand,
    ``module`` the block and ``n_layers`` the number of blocks. ``part`` is the module within the
    block at whose output the site is, or attention's for ``hook_resid_mid``.
    """

    kind: Kind
    layer: int
    d_model: int
    n_layers: int = field(compare=False)
    path: str = field(compare=False)
    module: nn.Module = field(compare=False, repr=False)
    part: Part | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """``blocks.12.hook_mlp_out``, the same for every model and wrapper of one."""
        return hook_name(self.layer, self.kind)

    @property
    def blocks_below(self) -> int:
        """How many blocks run to their end before the site."""
        return self.layer + (self.kind == "hook_resid_post")


def resolve_site(model: nn.Module, site: int | str | Site) -> Site:
    """The point of the model that ``site`` names.

    An int is the output of that decoder block, counted from 0 (negative numbers are refused, so
    that what is recorded reads the same for every model). A string is

    * ``blocks.12.hook_resid_post``, ``.hook_resid_pre``, ``.hook_resid_mid``, ``.hook_attn_out`` or
      ``.hook_mlp_out``, as in TransformerLens and SAELens;
    * a block's module path, in this model or another wrapper of it, ``layers.12`` or ``layer_12``:
      its output; with a module in it (``model.layers.12.mlp``, ``layers.12.self_attn``): that
      module's output, where this is what is added to the residual stream;
    * ``resid_post_layer_12``, ``mlp_out_layer_12``, ``attn_out_layer_12``: those modules' outputs;
    * Neuronpedia's ``gemma-2-2b/12-gemmascope-res-16k``, with or without the model. A transcoder is
      where it writes, ``hook_mlp_out``.

    A :class:`Site` of another model is looked up in this one. Raises :class:`InputError` listing
    the sites that exist, and for names of other points and of points that this model does not have.
    """
    path, blocks = decoder_blocks(model)
    if isinstance(site, Site):
        if site.layer < len(blocks) and blocks[site.layer] is site.module:
            return site
        site = site.name
    existing = f"sites are 0 … {len(blocks) - 1} (module path {path}.N)"
    point = _point(site, path, existing)
    if point.kind is not None:
        layer, kind = canonical(point.layer, point.kind)
        point = point._replace(layer=layer, kind=kind)
    if not 0 <= point.layer < len(blocks):
        raise InputError(f"no site {site!r}: {existing}")
    block = blocks[point.layer]
    try:
        kind, part = _located(model, block, point)
    except InputError as error:
        raise InputError(f"site {site!r}: {error}") from None
    adds = part is not None and kind != "hook_resid_mid"
    return Site(
        kind=kind,
        layer=point.layer,
        d_model=int(text_config(model).hidden_size),
        n_layers=len(blocks),
        path=f"{path}.{point.layer}" + (f".{part.path}" if part is not None and adds else ""),
        module=block,
        part=part,
    )


def is_site(model: nn.Module, name: str, site: Site) -> bool:
    """Whether ``name`` means ``site`` in this model; no where it means no site."""
    try:
        return resolve_site(model, name) == site
    except InputError:
        return False


def _point(site: int | str, path: str, existing: str) -> Point:
    if isinstance(site, int) and not isinstance(site, bool):
        return Point(site, "hook_resid_post")
    if not isinstance(site, str):
        raise InputError(f"site must be an int or a name, got {site!r}")
    try:
        return parse(site, path)
    except InputError as error:
        raise InputError(f"{error}: {existing}") from None


def _located(model: nn.Module, block: nn.Module, point: Point) -> tuple[Kind, Part | None]:
    """The point's kind, and the part of the block that it takes to get there."""
    if point.kind in ("hook_resid_pre", "hook_resid_post"):
        return point.kind, None
    parts = block_parts(model, block)
    if point.kind is None:
        return _added_by(parts, point.module)
    if point.kind == "hook_resid_mid" and parts.parallel:
        raise InputError(
            "there is no hook_resid_mid in this model, whose attention and MLP read the same input"
        )
    part = parts.mlp if point.kind == "hook_mlp_out" else parts.attention
    if point.own and not part.is_whole:
        raise InputError(
            f"this model does not add that module's output itself, but {_adding(part)}; for what "
            f"is added say blocks.{point.layer}.{point.kind}"
        )
    return point.kind, part


def _added_by(parts: Parts, module: str | None) -> tuple[Kind, Part]:
    """The point at the output of a module; only of one whose output is added as it is."""
    kinds: tuple[tuple[Kind, Part], ...] = (
        ("hook_attn_out", parts.attention),
        ("hook_mlp_out", parts.mlp),
    )
    for kind, part in kinds:
        if part.path == module and part.scale == 1:
            return kind, part
    added = " and ".join(_adding(part) for _, part in kinds)
    raise InputError(
        f"the output of {module} is no point of the residual stream; added to it are {added} "
        "(hook_attn_out, hook_mlp_out)"
    )


def _adding(part: Part) -> str:
    return part.path if part.scale == 1 else f"{part.scale:g} × {part.path}"


def text_config(model: nn.Module) -> Any:
    """The configuration of the model's text part (itself, for models that are only text)."""
    config: Any = getattr(model, "config", None)
    if config is None:
        raise InputError(
            f"{type(model).__name__} has no config; pass a transformers causal language model"
        )
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Module path and list of the decoder blocks.

    They are the outermost list of ``num_hidden_layers`` modules inside the text model, which
    holds for every decoder-only architecture and needs no table of names.
    """
    config = text_config(model)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{type(model).__name__} has an encoder beside its decoder; "
            "only decoder-only language models are supported"
        )
    n_layers = int(config.num_hidden_layers)
    # Some families call their head the decoder, which holds no blocks.
    candidates = [*_lists_of(_text_model(model), n_layers), *_lists_of(model, n_layers)]
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no list of {n_layers} decoder blocks; "
            "only decoder-only language models are supported"
        )
    blocks = candidates[0]
    return next(name for name, module in model.named_modules() if module is blocks), blocks


def _lists_of(root: nn.Module, length: int) -> Iterator[nn.ModuleList]:
    by_depth = sorted(root.named_modules(), key=lambda item: item[0].count("."))
    for _, module in by_depth:
        if isinstance(module, nn.ModuleList) and len(module) == length:
            yield module


def _text_model(model: Any) -> nn.Module:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if isinstance(decoder, nn.Module) else model
