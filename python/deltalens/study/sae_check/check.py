"""Does this SAE fit this model and site? What it rebuilds of sample text, and what looks wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import Sifted, Sinks, Site, activations, find_bos, is_site, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_name
from deltalens.lm.model.parts import execution_device
from deltalens.lm.points.names import hook_name
from deltalens.lm.sites import text_config
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt
from deltalens.sae import SAE, Encoder, as_sae
from deltalens.sae.encoding import Encoding, TopK
from deltalens.sae.reconstruction import Reconstruction
from deltalens.study.sae_check.alternatives import Alternative, alternatives
from deltalens.study.sae_check.rows import RowSummary, summarise_rows
from deltalens.study.sae_check.sample_texts import SAMPLE_TEXTS
from deltalens.study.sae_check.shown import check_view
from deltalens.visible.frame import frame
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

SAMPLE_TOKENS = 2048
COMPARED_TOKENS = 512  # of the sample, for each alternative
LEFT = 0.9  # of what is unexplained, or less, an alternative must leave to be named
_CONTEXT = 1024
_UNKNOWN = 0.2
_DENSE = 0.1
_POOR = 0.5
_NOISE = 0.003
_LISTED = 5


@dataclass(frozen=True)
class SAECheck(Shown):
    """What :func:`check_sae` found.

    ``reconstruction`` is None where the checkpoint cannot be encoded with. ``alternatives`` are
    other readings of the checkpoint and other layers, each with the variance that it explains of
    the tokens of which ``compared`` is what the checkpoint's own reading explains. ``excluded``
    tokens of the sample were left out: each text's first, and others of huge norm.
    """

    site: Site
    rows: RowSummary
    reconstruction: Reconstruction | None
    compared: float | None
    alternatives: list[Alternative]
    excluded: int
    warnings: list[str]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``: name and explained of each of ``alternatives``.

        Raises :class:`InputError` where there is no pandas.
        """
        names = ("name", "explained")
        return frame({name: [getattr(one, name) for one in self.alternatives] for name in names})

    def _view(self) -> View:
        return check_view(self)


def check_sae(
    model: Any,
    tokenizer: Any,
    sae: SAE,
    *,
    site: int | str | Site,
    texts: Iterable[Prompt] | None = None,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> SAECheck:
    """Rebuild sample text's activations with ``sae`` and warn of what looks wrong.

    texts: what :func:`~deltalens.mean_activation` takes; by default a few paragraphs of many kinds.
    About 2,000 tokens are read. Each warning is one line: a record that disagrees with the model or
    site, rows that are zero or not finite, and every alternative (b_dec subtracted from the input
    or not, other input scales, square matrices transposed, the layer above or below) that leaves
    at most nine tenths of the variance unexplained that the checkpoint's own reading does.

    Raises :class:`InputError` for texts without tokens, or of which the tokenizer knows too little.
    """
    sae, place = as_sae(sae), resolve_site(model, site)
    warnings = [*recorded_otherwise(model, place, sae)]
    try:
        encoding = sae.encoding
        encoder = _encoder(sae, encoding, place)
    except InputError as error:
        rows = summarise_rows(as_decoder(sae), None)
        warnings += [*_row_warnings(rows), f"cannot encode with it: {error}"]
        return SAECheck(place, rows, None, None, [], 0, warnings)
    rows = summarise_rows(sae.W_dec, encoding.W_enc)
    warnings += _row_warnings(rows)
    ids = _sample(model, tokenizer, texts, template_options(chat_template_kwargs, tokenizer))
    acts, excluded = _site_rows(model, ids, place, batch_tokens, progress)
    found = encoder.reconstruction(acts)
    few = _evenly(acts)
    compared = encoder.reconstruction(few).explained
    others = [
        *alternatives(encoding, sae.W_dec, few),
        *_layers(model, ids, place, encoder, batch_tokens),
    ]
    others.sort(key=lambda other: -other.explained)
    warnings += _fit_warnings(sae, encoding, rows, found, compared, others)
    return SAECheck(place, rows, found, compared, others, excluded, warnings)


def recorded_otherwise(model: Any, site: Site, sae: SAE) -> Iterator[str]:
    """A line for the model and one for the site, where the SAE says it was trained elsewhere."""
    if sae.model_name is not None:
        said, used = (name.rstrip("/").lower() for name in (sae.model_name, model_name(model)))
        if said.split("/")[-1] not in used and used.split("/")[-1] not in said:
            yield (
                f"the SAE says it was trained on {sae.model_name}, but the model is "
                f"{model_name(model)}"
            )
    if sae.site is not None and not is_site(model, sae.site, site):
        yield f"the SAE says it was trained at {sae.site}, but the site is {site.name}"


def _encoder(sae: SAE, encoding: Encoding, site: Site) -> Encoder:
    if sae.input_site is not None:
        raise InputError(
            f"it is a transcoder, which reads {sae.input_site} and writes elsewhere: there is "
            "nothing for it to rebuild"
        )
    encoder = Encoder(encoding, sae.W_dec)
    if (encoder.d_in, encoder.d_out) != (site.d_model, site.d_model):
        raise InputError(
            f"it maps {encoder.d_in} dimensions to {encoder.d_out}, but {site.name} has "
            f"{site.d_model}"
        )
    return encoder


def _sample(
    model: Any, tokenizer: Any, texts: Iterable[Prompt] | None, template: ChatOptions
) -> list[list[int]]:
    limit = min(getattr(text_config(model), "max_position_embeddings", None) or _CONTEXT, _CONTEXT)
    bos = find_bos(model, tokenizer)
    ids: list[list[int]] = []
    for number, text in enumerate(SAMPLE_TEXTS if texts is None else texts, start=1):
        if sum(map(len, ids)) >= SAMPLE_TOKENS:
            break
        if text:
            one = encode_prompt(
                tokenizer, text, bos=bos, name=f"text {number}", chat_template_kwargs=template
            )
            ids.append(one[:limit])
    _check_known(tokenizer, ids)
    return ids


def _check_known(tokenizer: Any, ids: list[list[int]]) -> None:
    tokens = [token for one in ids for token in one[1:]]
    if not tokens:
        raise InputError("the texts hold no token after each text's first; give longer texts")
    unk = getattr(tokenizer, "unk_token_id", None)
    unknown = sum(token == unk for token in tokens) / len(tokens)
    if unknown > _UNKNOWN:
        raise InputError(
            f"the tokenizer does not know {unknown:.0%} of the sample's tokens; "
            "give texts of the model's own language (--texts)"
        )


def _site_rows(
    model: Any, ids: list[list[int]], site: Site, batch_tokens: int, progress: bool = False
) -> tuple[Tensor, int]:
    """Activations of all tokens that are neither first nor of huge norm; how many those were."""
    stream = activations(model, ids, site=site, batch_tokens=batch_tokens, progress=progress)
    kept = torch.cat([rows[keep] for _, rows, keep in Sifted(stream, Sinks())])
    return kept.to(execution_device(site.module)), sum(map(len, ids)) - len(kept)


def _evenly(acts: Tensor) -> Tensor:
    return acts[:: -(-len(acts) // COMPARED_TOKENS)]


def _layers(
    model: Any, ids: list[list[int]], site: Site, encoder: Encoder, batch_tokens: int
) -> Iterator[Alternative]:
    for layer in (site.layer - 1, site.layer + 1):
        if 0 <= layer < site.n_layers:
            place = resolve_site(model, hook_name(layer, site.kind))
            acts, _ = _site_rows(model, ids, place, batch_tokens)
            explained = encoder.reconstruction(_evenly(acts)).explained
            yield Alternative(f"layer {layer}", explained)


def _leaves_less(explained: float, compared: float) -> bool:
    return 1 - explained <= LEFT * (1 - compared) and explained - compared > _NOISE


def _row_warnings(rows: RowSummary) -> Iterator[str]:
    for latents, what in ((rows.zero, "zero"), (rows.nonfinite, "not finite")):
        if latents:
            more = ", …" if latents[_LISTED:] else ""
            listed = ", ".join(map(str, latents[:_LISTED])) + more
            yield f"{len(latents)} decoder rows are {what}: latents {listed}"


def _fit_warnings(
    sae: SAE,
    encoding: Encoding,
    rows: RowSummary,
    found: Reconstruction,
    compared: float,
    others: list[Alternative],
) -> Iterator[str]:
    better = [
        other for other in others if other.explained > 0 and _leaves_less(other.explained, compared)
    ]
    for other in better:
        reads = "the SAE fits " + other.name + " better"
        if not other.name.startswith("layer"):
            reads = f"with {other.name} the SAE fits better"
        yield f"{reads}: {other.explained:.3f} of the variance explained instead of {compared:.3f}"
    if max(compared, *(other.explained for other in others)) < _POOR:
        yield (
            f"only {found.explained:.3f} of the variance is explained, and not much more in any "
            "other reading or neighbouring layer: is this the model it was trained on?"
        )
    if rows.cosine is not None and abs(rows.cosine) < 0.05:
        yield (
            f"encoder and decoder rows are unrelated (median cosine {rows.cosine:.3f}): "
            "one may be transposed, or of another SAE"
        )
    if not isinstance(encoding.activation, TopK) and found.l0 > _DENSE * sae.W_dec.n_latents:
        yield (
            f"{found.l0:.0f} of {sae.W_dec.n_latents} latents are active on average: "
            "a threshold or an input scale may be missing"
        )
