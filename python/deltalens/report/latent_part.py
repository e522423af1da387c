"""Everything known about each latent, as JSON values."""

from __future__ import annotations

from typing import Any

from deltalens.examples.text import summary
from deltalens.report.evidence import Evidence
from deltalens.report.steering_part import latent_steering, suspects
from deltalens.report.text import exact, readable, short
from deltalens.sae.formats.neuronpedia import latent_address
from deltalens.study.attribution import Attribution
from deltalens.study.detection.result import Told
from deltalens.study.lens import LensToken
from deltalens.trials.interpretation.interpret import Interpretation
from deltalens.trials.verdicts.sets import suspect_names
from deltalens.visible import visible

Json = dict[str, Any]

LATENTS_SHOWN = 1000
PAIRS_SHOWN = 200
LENS_SHOWN = 10
WINDOWS_SHOWN = 8  # of the largest activations; of each part of the sample, one
PROMPTS_SHOWN = 3  # with values per token: those with the largest effects
TOKENS_SHOWN = 600  # of one prompt, around the largest effect

_TOKEN = 80  # characters
_NUMBERS = (
    "stderr",
    "p_value",
    "rank_low",
    "rank_high",
    "push",
    "push_stderr",
    "presence",
    "presence_stderr",
    "positive",
    "negative",
)


def latent_documents(evidence: Evidence) -> list[Json]:
    """The ranked latents, best first, then other suspects that were steered with."""
    result = evidence.attribution
    ranked = result.latents.tolist()[:LATENTS_SHOWN]
    documents = [_ranked(result, at) for at in range(len(ranked))]
    documents += [
        {"latent": latent, "rank": None, "sets": sets}
        for latent, sets in _suspects(evidence).items()
        if latent not in ranked
    ]
    for document in documents:
        _add_evidence(document, evidence)
    return documents


def _suspects(evidence: Evidence) -> dict[int, list[str]]:
    """Latents that were steered with as suspects → the sets they are in."""
    found: dict[int, list[str]] = {}
    if evidence.steering is not None:
        sets = evidence.steering.result.sets
        for name in suspect_names(sets):
            for candidate in sets[name]:
                for latent, _ in candidate.members:
                    found.setdefault(latent, []).append(name)
    return found


def _add_evidence(document: Json, evidence: Evidence) -> None:
    latent = document["latent"]
    if evidence.neuronpedia is not None:
        document["neuronpedia"] = latent_address(evidence.neuronpedia, latent)
    if latent in evidence.ablation:
        document["ablation"] = [exact(value) for value in evidence.ablation[latent]]
    if latent in evidence.names:
        document["names"] = list(map(_name, evidence.names[latent]))
    if latent in evidence.examples:
        document["examples"] = _examples(evidence.examples[latent]["examples"])
    if evidence.detection is not None:
        document["detection"] = list(map(_told, evidence.detection.of_latent(latent)))
    if evidence.steering is not None:
        steered = suspects(evidence.steering.result).get(latent)
        if steered is not None:
            document["steering"] = latent_steering(evidence.steering, steered)


def _told(row: Told) -> Json:
    numbers = {name: exact(getattr(row, name)) for name in ("auc", "low", "high")}
    return {"tokens": row.tokens, "over": row.over, **numbers}


def _ranked(result: Attribution, at: int) -> Json:
    values = {name: exact(float(getattr(result, name)[at])) for name in _NUMBERS}
    lens = result.lens_of(at)
    return {
        "latent": int(result.latents[at]),
        "rank": at + 1,
        "score": exact(float(result.scores[at])),
        **values,
        "sign_unsure": bool(result.sign_unsure[at]),
        "promotes": list(map(_lens_token, lens.promotes[:LENS_SHOWN])),
        "suppresses": list(map(_lens_token, lens.suppresses[:LENS_SHOWN])),
        "per_pair": [short(value) for value in result.per_pair[:PAIRS_SHOWN, at].tolist()],
        "per_token": _per_token(result, at),
    }


def _name(found: Interpretation) -> Json:
    return {
        "kind": found.kind,
        "name": readable(found.name, 120),
        "explanation": readable(found.explanation),
        "model": readable(found.model, 200),
    }


def _lens_token(token: LensToken) -> list[Any]:
    return [visible(token.text[:_TOKEN]), short(token.cosine)]


def _per_token(result: Attribution, at: int) -> list[Json]:
    """Of the pairs with the largest effects: pair, first token shown, effects of the tokens."""
    if result.token_effects is None or at >= result.token_effects.values[0].shape[1]:
        return []
    kept = min(PAIRS_SHOWN, len(result.token_effects.values))
    largest = result.per_pair[:kept, at].abs().argsort(descending=True, stable=True)
    found = []
    for pair in largest[:PROMPTS_SHOWN].tolist():
        values = result.token_effects.values[pair][:, at]
        peak, most = int(values.abs().argmax()), max(0, len(values) - TOKENS_SHOWN)
        start = min(max(0, peak - TOKENS_SHOWN // 2), most)
        shown = values[start : start + TOKENS_SHOWN]
        found.append({"pair": pair, "start": start, "values": list(map(short, shown.tolist()))})
    return found


def shown_tokens(result: Attribution, documents: list[Json]) -> dict[int, list[str]]:
    """Pair → token texts, for the pairs that a card shows token by token."""
    pairs = {shown["pair"] for one in documents for shown in one.get("per_token", [])}
    if result.token_effects is None:
        return {}
    texts = result.token_effects.texts
    return {pair: [visible(text[:_TOKEN]) for text in texts(pair)] for pair in sorted(pairs)}


def _examples(found: Json) -> Json:
    parts = [("Largest activations", found["top"][:WINDOWS_SHOWN])]
    for number, group in enumerate(found["quantiles"], start=1):
        title = f"Sample, part {number} of {len(found['quantiles'])}"
        parts.append((title, group["windows"][-1:]))
    return {
        "summary": summary(found),
        "max": short(found["max"]),
        "parts": [[title, list(map(_window, windows))] for title, windows in parts if windows],
    }


def _window(window: Json) -> Json:
    return {
        "where": f"text {window['text']}, token {window['position']}",
        "peak": window["peak"],
        "tokens": [visible(text[:_TOKEN]) for text in window["tokens"]],
        "activations": list(map(short, window["activations"])),
    }
