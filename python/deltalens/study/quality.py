"""What a reader must know of a run's numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalens.visible import visible


def significance_sentence(metadata: Mapping[str, Any]) -> Iterator[str]:
    """How many latents stand out from chance; nothing of a run made before this was tested."""
    tested = metadata.get("significance")
    if tested:
        yield tested["sentence"]


def target_sentences(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is differenced, where that is not the log-loss of whole completions."""
    options, aim = metadata.get("options") or {}, metadata.get("aim") or {}
    target, code = options.get("target", "loss"), options.get("target_code")
    if target == "loss" and not aim.get("weighted"):
        return
    if aim.get("answers"):
        first, *others = aim["answers"]
        more = f", and others in {sum(a['completions'] for a in others):,}" if others else ""
        yield (
            f"What is differenced is {visible(target)}: the token “{visible(first['first'])}” "
            f"against “{visible(first['second'])}” after {first['completions']:,} "
            f"completions{more}."
        )
    elif code is not None:
        yield f"What is differenced is {visible(target)}, a function of the user's own."
    else:
        weights = " with weights of their own" if aim.get("weighted") else ""
        yield (
            f"What is differenced is the log-loss of tokens{weights} (target {visible(target)}): "
            f"{aim.get('tokens', 0):,} of the completions' {aim.get('of_tokens', 0):,}."
        )


def quality_sentences(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What was counted and left out, whether first order holds, and a token that decides scores by
    itself.

    ``metadata`` is a run's; one made before any of this was recorded gives no sentence on it.
    """
    yield from _counted_sentence(metadata)
    sinks, checked = metadata.get("sinks") or {}, metadata.get("first_order") or {}
    if sinks.get("limit") is not None:
        yield (
            f"Of {sinks['tokens']:,} prompt tokens {sinks['first']:,} first ones and "
            f"{sinks['massive']:,} with norms above {sinks['limit']:.4g} (median "
            f"{sinks['median']:.4g}) were left out as attention sinks."
        )
    if checked.get("undefined"):
        yield f"First order was not held against ablation: {checked['undefined']}."
    elif checked:
        yield (
            f"Held against exact ablation of the first {checked['latents']} latents over "
            f"{checked['pairs']} pairs, first order has a correlation of "
            f"{checked['correlation_entries']:.2f} and a slope of {checked['slope']:.2f}."
        )
    by_token = metadata.get("by_token") or {}
    if any(kept < of for kept, of in by_token.values()):
        (pairs, of_pairs), (latents, of_latents) = by_token["pairs"], by_token["latents"]
        yield (
            f"Effects by token were kept of the first {pairs:,} of {of_pairs:,} pairs and of the "
            f"first {latents:,} of {of_latents:,} latents."
        )
    for token in (metadata.get("dominant_tokens") or [])[:1]:
        where = (
            f"at position {token['position']}"
            if token["token"] is None
            else f"“{visible(token['token'].strip() or token['token'])}”"
        )
        yield (
            f"The prompts' token {where} ({token['norm']:.2g} times the median norm) carries more "
            f"than half of the score of {len(token['latents'])} latents."
        )


def _counted_sentence(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What beside prompts was counted, or took the baseline's place; nothing where nothing did."""
    options, counts = metadata.get("options") or {}, metadata.get("counts") or {}
    prefix, own = options.get("prefix_tokens"), counts.get("before_positive")
    if prefix:
        yield (
            f"The first {prefix:,} tokens of each completion were counted as its prompt; the "
            "losses are those of its other tokens."
        )
    if own is not None:
        yield (
            f"Of {counts['prompt_tokens']:,} counted tokens {own:,} precede positive completions "
            f"alone and {counts['before_negative']:,} negative ones alone."
        )
    if options.get("align"):
        yield (
            "Activations were held against those of the negative prompts at aligned tokens "
            f"({options['align']}), not against the baseline."
        )
