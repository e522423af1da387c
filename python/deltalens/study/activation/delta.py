"""Δ-activation: the latents whose mean activation differs most, the method's comparison set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.errors import InputError
from deltalens.lm import Pair, Sinks, TokenRow, find_bos
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import compared_fingerprints, model_fingerprint, model_name
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.lm.text.encoded import Reading
from deltalens.pairs.encode import encode_prompt, encode_study
from deltalens.pairs.row import Prompt
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.sae import SAE
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.pieces.cut import Piece, Row, pieces
from deltalens.study.activation.pieces.read import read_piece
from deltalens.study.activation.pieces.store import PieceRoom, sums_settings
from deltalens.study.activation.pieces.sums import Summing
from deltalens.study.activation.sifted_pairs import Compared, TwoCompletions, TwoModels
from deltalens.study.run import site_directory

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
    out: str | Path | None = ...,
    ranks: Ranks = ...,
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
    out: str | Path | None = ...,
    ranks: Ranks = ...,
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
    out: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> ActivationDifference | dict[AnySite, ActivationDifference]:
    """The k latents whose mean activation grew most from ``original`` to ``changed``.

    Both models, of one tokenizer, read the same prompts once; a latent's mean over a prompt's
    tokens (a leading BOS excluded, and with ``sinks`` each prompt's first token and those of
    massive norm in either model) is averaged over prompts, as Δ-attribution averages over pairs.
    Sums are fp64, and memory is a batch of tokens × a tile of latents. ``sae`` is of any kind that
    can be encoded with, or a SAELens object. With a list of sites, and an SAE for each in a list or
    a dict, the result is a dict by site, as the sites were named, from one pass for all.

    With ``out`` the result is written into that directory (of several sites, each into one below
    it, ``site-12`` …), and meanwhile what is found of every 256 sequences is kept beside it, so
    that the same call continues one that was cut. ranks: processes that all make this call with one
    ``out`` and share the prompts, with the same result; a :class:`~deltalens.ranks.shard.Shard`
    does its part of them and raises :class:`~deltalens.ranks.shard.ShardDone`.

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
    rows = [Row(one, int(one[:1] == [bos])) for one in ids]
    asked = Asked.of(site)
    places = resolve_sites(changed, asked.names)
    at = [
        Compared(place, one, k, sinks)
        for place, one in zip(places, asked.each(sae, "SAE"), strict=True)
    ]

    def both(piece: Piece) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
        ours, theirs = (
            read_piece(model, resolve_sites(model, asked.names), batch_tokens, piece)
            for model in (changed, original)
        )
        for (number, a), (_, b) in zip(ours, theirs, strict=True):
            yield number, list(zip(a, b, strict=True))

    said = {
        "model": model_name(changed),
        "against": model_name(original),
        "fingerprints": dict(zip(("model", "against"), fingerprints, strict=True)),
        "tokens": "prompt",
        "chat_template_kwargs": options,
    }
    settings = partial(sums_settings, fingerprints, places, [one.sae for one in at], sinks)
    summing = Summing(
        pieces=lambda: pieces(rows),
        read=both,
        tallies=[partial(TwoModels, one) for one in at],
        room=PieceRoom(out, settings, ranks, directory=True),
        ranks=ranks,
    )
    return asked.answer(_compared(summing, at, said, out, asked.several, progress))


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
    prefix_tokens: int = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
    out: str | Path | None = ...,
    ranks: Ranks = ...,
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
    prefix_tokens: int = ...,
    batch_tokens: int = ...,
    progress: bool = ...,
    out: str | Path | None = ...,
    ranks: Ranks = ...,
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
    prefix_tokens: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
    out: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> ActivationDifference | dict[AnySite, ActivationDifference]:
    """The k latents most active in the pairs' positive completions over their negative ones.

    As :func:`delta_activation`, in one model: means are over the completion's tokens or, with
    ``tokens="all"``, over the prompt's too (all but a leading BOS), and averaged over pairs.
    Several sites, ``out`` and ``ranks`` as there.
    """
    if tokens not in ("completion", "all"):
        raise InputError(f"tokens must be 'completion' or 'all', got {tokens!r}")
    options = template_options(chat_template_kwargs, tokenizer)
    encoded = encode_study(model, tokenizer, pairs, options, Reading(prefix_tokens))
    rows = [
        Row(row.prompt_ids + row.completion_ids, _first(row, tokens))
        for item in encoded
        for row in item.rows
    ]
    asked = Asked.of(site)
    places = resolve_sites(model, asked.names)
    at = [
        Compared(place, one, k, sinks)
        for place, one in zip(places, asked.each(sae, "SAE"), strict=True)
    ]
    fingerprint = model_fingerprint(model)
    said = {
        "model": model_name(model),
        "against": None,
        "fingerprints": {"model": fingerprint},
        "tokens": tokens,
        "prefix_tokens": prefix_tokens,
        "chat_template_kwargs": options,
    }
    settings = partial(sums_settings, [fingerprint], places, [one.sae for one in at], sinks)
    summing = Summing(
        pieces=lambda: pieces(rows, together=2),
        read=partial(read_piece, model, places, batch_tokens),
        tallies=[partial(TwoCompletions, one) for one in at],
        room=PieceRoom(out, settings, ranks, directory=True),
        ranks=ranks,
    )
    return asked.answer(_compared(summing, at, said, out, asked.several, progress))


def _first(row: TokenRow, tokens: str) -> int:
    """The first token that counts of a prompt and a completion."""
    return len(row.prompt_ids) if tokens == "completion" else int(not row.counted[0])


def _compared(
    summing: Summing,
    at: Sequence[Compared],
    said: dict[str, Any],
    out: str | Path | None,
    several: bool,
    progress: bool,
) -> list[ActivationDifference]:
    """What differs at each site, written to ``out`` too, if any."""
    sides = list(said["fingerprints"])
    tokens = len(sides) * sum(tokens for tokens, mine in summing.parts() if mine)
    work = Work(Cost(forward=tokens), tokens)
    with begun(log, work, summing.rehearsed), summing.room.filling() as store:
        found = summing.over(summing.pieces(), store, progress=progress)
        assert found is not None
        results = [one.result(of, said, sides) for one, of in zip(at, found, strict=True)]
        if out is not None:
            directories = _directories(Path(out), at, several)
            summing.ranks.from_first(lambda: _save(results, directories))
    return results


def _directories(out: Path, at: Sequence[Compared], several: bool) -> list[Path]:
    return [site_directory(out, one.site) if several else out for one in at]


def _save(results: Sequence[ActivationDifference], directories: Sequence[Path]) -> None:
    for result, directory in zip(results, directories, strict=True):
        result.save(directory)
