"""Δ-activation: the latents whose mean activation differs most, the method's comparison set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.errors import InputError
from deltalens.lm import Pair, Sinks, find_bos
from deltalens.lm.activations import activations_at
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import compared_fingerprints, model_fingerprint, model_name
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_prompt, encode_study
from deltalens.pairs.row import Prompt
from deltalens.sae import SAE
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.sifted_pairs import TwoCompletions, TwoModels

log = logging.getLogger(__name__)


@overload
def delta_activation(
    changed: Any,
    original: Any,
    tokenizer: Any,
    prompts: Iterable[Prompt],
    sae: SAE,
    *,
    site: AnySite,
    k: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
) -> ActivationDifference: ...


@overload
def delta_activation(
    changed: Any,
    original: Any,
    tokenizer: Any,
    prompts: Iterable[Prompt],
    sae: Sequence[SAE] | Mapping[AnySite, SAE],
    *,
    site: SeveralSites,
    k: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
) -> dict[AnySite, ActivationDifference]: ...


def delta_activation(
    changed: Any,
    original: Any,
    tokenizer: Any,
    prompts: Iterable[Prompt],
    sae: Any,
    *,
    site: AnySite | SeveralSites,
    k: int = 100,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> ActivationDifference | dict[AnySite, ActivationDifference]:
    """The k latents whose mean activation grew most from ``original`` to ``changed``.

    Both models, of one tokenizer, read the same prompts once; a latent's mean over a prompt's
    tokens (a leading BOS excluded, and with ``sinks`` each prompt's first token and those of
    massive norm in either model) is averaged over prompts, as Δ-attribution averages over pairs.
    Sums are fp64, and memory is a batch of tokens × a tile of latents. ``sae`` is of any kind that
    can be encoded with, or a SAELens object. With a list of sites, and an SAE for each in a list or
    a dict, the result is a dict by site, as the sites were named, from one pass for all.

    Raises :class:`InputError` when there is no prompt, for a prompt without a token after BOS, and
    for what does not fit the models or the SAE.
    """
    bos, options = find_bos(changed, tokenizer), template_options(chat_template_kwargs, tokenizer)
    ids = [
        encode_prompt(
            tokenizer,
            prompt,
            bos=bos,
            name=f"prompt {number}",
            chat_template_kwargs=options,
        )
        for number, prompt in enumerate(prompts, start=1)
    ]
    if not ids:
        raise InputError("no prompts given; give at least one")
    fingerprints = compared_fingerprints(changed, original)
    first = [int(one[:1] == [bos]) for one in ids]
    asked = Asked.of(site)
    places = resolve_sites(changed, asked.names)
    of_sites = [
        TwoModels(place, one, k, sinks, first)
        for place, one in zip(places, asked.each(sae, "SAE"), strict=True)
    ]

    def both(shown: bool = False) -> Iterator[Any]:
        ours, theirs = (
            activations_at(
                model,
                ids,
                resolve_sites(model, asked.names),
                batch_tokens=batch_tokens,
                progress=bar,
            )
            for model, bar in ((changed, shown), (original, False))
        )
        return zip(ours, theirs, strict=True)

    with begun(log, _reading(ids, models=2), both):
        for (number, a), (_, b) in both(progress):
            for one, of_ours, of_theirs in zip(of_sites, a, b, strict=True):
                one.put(number, of_ours, of_theirs)
    said = {
        "model": model_name(changed),
        "against": model_name(original),
        "fingerprints": dict(zip(("model", "against"), fingerprints, strict=True)),
        "tokens": "prompt",
        "chat_template_kwargs": options,
    }
    return asked.answer([one.result(said) for one in of_sites])


@overload
def delta_activation_of_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    sae: SAE,
    *,
    site: AnySite,
    tokens: Literal["completion", "all"] = ...,
    k: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
) -> ActivationDifference: ...


@overload
def delta_activation_of_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    sae: Sequence[SAE] | Mapping[AnySite, SAE],
    *,
    site: SeveralSites,
    tokens: Literal["completion", "all"] = ...,
    k: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
) -> dict[AnySite, ActivationDifference]: ...


def delta_activation_of_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    sae: Any,
    *,
    site: AnySite | SeveralSites,
    tokens: Literal["completion", "all"] = "completion",
    k: int = 100,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> ActivationDifference | dict[AnySite, ActivationDifference]:
    """The k latents most active in the pairs' positive completions over their negative ones.

    As :func:`delta_activation`, in one model: means are over the completion's tokens or, with
    ``tokens="all"``, over the prompt's too (all but a leading BOS), and averaged over pairs.
    Several sites as there.
    """
    if tokens not in ("completion", "all"):
        raise InputError(f"tokens must be 'completion' or 'all', got {tokens!r}")
    options = template_options(chat_template_kwargs, tokenizer)
    encoded = encode_study(model, tokenizer, pairs, options)
    sequences = [
        item.prompt_ids + completion
        for item in encoded
        for completion in (item.positive_ids, item.negative_ids)
    ]
    first = [
        len(item.prompt_ids) if tokens == "completion" else int(not item.counted[0])
        for item in encoded
    ]
    asked = Asked.of(site)
    places = resolve_sites(model, asked.names)
    of_sites = [
        TwoCompletions(place, one, k, sinks, first)
        for place, one in zip(places, asked.each(sae, "SAE"), strict=True)
    ]
    read = partial(activations_at, model, sequences, places, batch_tokens=batch_tokens)
    with begun(log, _reading(sequences, models=1), read):
        for number, rows in read(progress=progress):
            for one, of_site in zip(of_sites, rows, strict=True):
                one.put(number, of_site)
    said = {
        "model": model_name(model),
        "against": None,
        "fingerprints": {"model": model_fingerprint(model)},
        "tokens": tokens,
        "chat_template_kwargs": options,
    }
    return asked.answer([one.result(said) for one in of_sites])


def _reading(sequences: Sequence[list[int]], models: int) -> Work:
    tokens = models * sum(map(len, sequences))
    return Work(Cost(forward=tokens), tokens)
