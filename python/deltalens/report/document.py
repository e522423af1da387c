"""The whole page as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from deltalens.lm import Pair
from deltalens.report.completions_part import shown_completions
from deltalens.report.evidence import Evidence
from deltalens.report.findings import findings
from deltalens.report.latent_part import (
    LATENTS_SHOWN,
    PAIRS_SHOWN,
    latent_documents,
    shown_tokens,
)
from deltalens.report.settings_part import settings_document
from deltalens.report.steering_part import steering_document
from deltalens.report.text import completion, messages, place_name, readable
from deltalens.study.attribution import Attribution
from deltalens.version import __version__

Json = dict[str, Any]


def report_document(evidence: Evidence, beside: Sequence[Json] = ()) -> Json:
    """What the page shows; parts that the run lacks are left out."""
    result = evidence.attribution
    latents, completions = latent_documents(evidence), shown_completions(evidence, PAIRS_SHOWN)
    document: Json = {
        "version": __version__,
        "behaviour": readable(evidence.behaviour, 200),
        "facts": _facts(evidence),
        "findings": findings(evidence),
        "latents": latents,
        "pairs": _pairs(result, len(completions)),
        "completions": completions,
        "tokens": shown_tokens(result, latents),
        "settings": settings_document(evidence),
        "left_out": _left_out(result),
        "beside": list(beside),
    }
    if evidence.steering is not None:
        document["steering"] = steering_document(evidence.steering)
    return document


def as_script_data(document: Json) -> str:
    """JSON that may stand in a ``<script>`` element: no character in it can end the element."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _facts(evidence: Evidence) -> list[list[str]]:
    """What was studied, in a line: name and value."""
    metadata = evidence.attribution.metadata
    model, sae, site = (metadata.get(name, {}) for name in ("model", "sae", "site"))
    facts = [
        ["Run", evidence.run],
        ["Model", model.get("name")],
        ["SAE", sae.get("path") or sae.get("format")],
        ["Site", site.get("name", site.get("path"))],
        ["Pairs", f"{len(evidence.attribution.pairs):,}"],
        ["Made", metadata.get("created")],
    ]
    if evidence.steering is not None:
        facts.insert(-1, ["Intervention", evidence.steering.result.intervention])
    return [[name, place_name(str(value))] for name, value in facts if value]


def _pairs(result: Attribution, by_token: int) -> list[Json]:
    """Of the first ``by_token`` pairs completions are shown token by token, not as texts."""
    found: list[Json] = []
    for number, pair in enumerate(result.pairs[:PAIRS_SHOWN], start=1):
        one: Json = {"id": readable(pair.id or str(number), 80), "prompt": _prompts(pair)}
        if number > by_token:
            one["positive"], one["negative"] = map(completion, (pair.positive, pair.negative))
        found.append(one)
    return found


def _prompts(pair: Pair) -> list[list[str]]:
    """(role, text) of the prompt's messages, and of the negative completion's own prompt."""
    if pair.negative_prompt is None:
        return messages(pair.prompt)
    other = [
        [f"negative prompt {role}".strip(), text] for role, text in messages(pair.negative_prompt)
    ]
    return [*messages(pair.prompt), *other]


def _left_out(result: Attribution) -> list[str]:
    found = []
    for name, count, shown in (
        ("latents", len(result.latents), LATENTS_SHOWN),
        ("pairs", len(result.pairs), PAIRS_SHOWN),
    ):
        if count > shown:
            found.append(f"the first {shown} of {count:,} {name} are shown")
    return found
