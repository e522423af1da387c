"""Δ-activation: the latents whose mean activation differs most, the method's comparison set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Pair, Sifted, Sinks, Site, activations, find_bos, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import compared_fingerprints, model_fingerprint, model_name
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_prompt, encode_study
from deltalens.pairs.row import Prompt
from deltalens.sae import SAE, as_sae
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.activation.paired_sums import PairedSums, Rows, batches


def delta_activation(
    changed: Any,
    original: Any,
    tokenizer: Any,
    prompts: Iterable[Prompt],
    sae: SAE,
    *,
    site: int | str | Site,
    k: int = 100,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> ActivationDifference:
    """The k latents whose mean activation grew most from ``original`` to ``changed``.

    Both models, of one tokenizer, read the same prompts once; a latent's mean over a prompt's
    tokens (a leading BOS excluded, and with ``sinks`` each prompt's first token and those of
    massive norm in either model) is averaged over prompts, as Δ-attribution averages over pairs.
    Sums are fp64, and memory is a batch of tokens × a tile of latents. ``sae`` is of any kind that
    can be encoded with, or a SAELens object.

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
    ours, theirs = (
        Sifted(activations(model, ids, site=site, batch_tokens=batch_tokens, progress=shown), sinks)
        for model, shown in ((changed, progress), (original, False))
    )
    rows = (
        _both(a, b, a_kept & b_kept, first[n], f"prompt {n + 1}")
        for (n, a, a_kept), (_, b, b_kept) in zip(ours, theirs, strict=True)
    )
    said = {
        "model": model_name(changed),
        "against": model_name(original),
        "fingerprints": dict(zip(("model", "against"), fingerprints, strict=True)),
        "tokens": "prompt",
        "chat_template_kwargs": options,
    }
    found = _compare(rows, sae, k, said, resolve_site(changed, site))
    found.metadata["sinks"] = {
        "model": ours.left_out.as_dict(),
        "against": theirs.left_out.as_dict(),
    }
    return found


def delta_activation_of_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    sae: SAE,
    *,
    site: int | str | Site,
    tokens: Literal["completion", "all"] = "completion",
    k: int = 100,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> ActivationDifference:
    """The k latents most active in the pairs' positive completions over their negative ones.

    As :func:`delta_activation`, in one model: means are over the completion's tokens or, with
    ``tokens="all"``, over the prompt's too (all but a leading BOS), and averaged over pairs.
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
    stream = activations(model, sequences, site=site, batch_tokens=batch_tokens, progress=progress)
    sifted = Sifted(stream, sinks)
    each = iter(sifted)
    # A stream zipped with itself gives its items two by two.
    rows = (
        (
            _left(a, a_kept, first[n // 2], f"pair {n // 2 + 1}"),
            _left(b, b_kept, first[n // 2], f"pair {n // 2 + 1}"),
        )
        for (n, a, a_kept), (_, b, b_kept) in zip(each, each, strict=True)
    )
    said = {
        "model": model_name(model),
        "against": None,
        "fingerprints": {"model": model_fingerprint(model)},
        "tokens": tokens,
        "chat_template_kwargs": options,
    }
    found = _compare(rows, sae, k, said, resolve_site(model, site))
    found.metadata["sinks"] = {"model": sifted.left_out.as_dict()}
    return found


def _both(ours: Tensor, theirs: Tensor, kept: Tensor, first: int, label: str) -> Rows:
    return _left(ours, kept, first, label), _left(theirs, kept, first, label)


def _left(rows: Tensor, kept: Tensor, first: int, label: str) -> Tensor:
    """The kept ones of ``rows`` from the token ``first`` on."""
    found = rows[first:][kept[first:]]
    if not len(found):
        raise InputError(
            f"{label}: no token is left: its first and those of massive norm are left out "
            "(sinks=None or --keep-sinks counts them)"
        )
    return found


def _compare(
    rows: Iterator[Rows], source: SAE, k: int, said: dict[str, Any], site: Site
) -> ActivationDifference:
    sae = as_sae(source)
    if not 1 <= k <= sae.W_dec.n_latents:
        raise InputError(f"k must be 1 … {sae.W_dec.n_latents}, the SAE's latents, got {k}")
    sums = PairedSums(encoder_at(sae, site))
    for batch in batches(rows):
        sums.add(batch)
    said = {
        **said,
        "site": site.name,
        "sae": str(sae.path),
        "sae_fingerprint": sae.fingerprint,
    }
    return sums.result(k, said)
