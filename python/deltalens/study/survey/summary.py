"""What a survey found, as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from deltalens.storage.atomic import write_text
from deltalens.study.attribution import Attribution
from deltalens.study.significance.sentence import LEVEL
from deltalens.study.survey.directory import SUMMARY_FILE
from deltalens.study.survey.multiplicity import holm
from deltalens.study.survey.result import Key, Survey
from deltalens.study.survey.shared import shared_at

BEST = 5  # latents listed of a study


def summary(survey: Survey) -> dict[str, Any]:
    """Plain values: behaviours, places, studies, what they share, and what all of them together
    say. Numbers that do not exist are NaN."""
    studies = [_study(survey, key) for key in survey]
    multiplicity = _multiplicity(studies)
    return {
        "behaviours": list(dict.fromkeys(study["behaviour"] for study in studies)),
        "places": _places(studies),
        "level": LEVEL,
        "target": _target(survey),
        "studies": studies,
        "multiplicity": multiplicity,
        "shared": [{**place, **shared_at(_at(survey, place))} for place in _places(studies)],
    }


def _target(survey: Survey) -> str:
    """Of every study in it."""
    options = (result.metadata["options"] for result in survey.values())
    return next((str(one.get("target", "loss")) for one in options), "loss")


def write_summary(survey: Survey) -> None:
    """Write ``survey.json``; NaN, which JSON lacks, as null."""
    text = json.dumps(_plain(summary(survey)), indent=1, ensure_ascii=False)
    write_text(survey.directory / SUMMARY_FILE, text + "\n")


def _at(survey: Survey, place: Mapping[str, Any]) -> dict[str, Attribution]:
    """Studies at a place by behaviour."""
    wanted = (place["site"], place["sae"])
    return {key[0]: result for key, result in survey.items() if _place_of(key) == wanted}


def _place_of(key: Key) -> tuple[str, str | None]:
    return key[1], key[2] if len(key) > 2 else None


def _places(studies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the model's layers, and within them as they were given."""
    found = {
        (study["site"], study["sae"]): {name: study[name] for name in ("site", "sae", "layer")}
        for study in studies
    }
    return sorted(found.values(), key=lambda place: place["layer"])


def _study(survey: Survey, key: Key) -> dict[str, Any]:
    result, metadata = survey[key], survey[key].metadata
    site, sae = _place_of(key)
    tested = metadata["significance"]
    return {
        "behaviour": key[0],
        "site": site,
        "sae": sae,
        "layer": metadata["site"]["layer"],
        "run": survey.runs[key],
        "pairs": len(result.pairs),
        "latents": metadata["counts"]["latents"],
        "ranked": len(result.latents),
        "certified": metadata["certified"],
        "flips": tested["flips"],
        "smallest_possible": tested.get("smallest_possible", math.nan),
        "smallest": tested.get("smallest", math.nan),
        "stand_out": result.stand_out,
        "stand_out_of_all": tested.get("stand_out_of_all", 0),
        "best": [_latent(result, row) for row in range(min(BEST, len(result.latents)))],
        "p_values": result.p_value.tolist(),
    }


def _latent(result: Attribution, row: int) -> dict[str, Any]:
    lens = result.lens_of(row)
    return {
        "latent": int(result.latents[row]),
        "score": float(result.scores[row]),
        "stderr": float(result.stderr[row]),
        "p_value": float(result.p_value[row]),
        "push": float(result.push[row]),
        "sign_unsure": bool(result.sign_unsure[row]),
        "promotes": [token.text for token in lens.promotes],
    }


def _multiplicity(studies: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all studies that were tested; adds to each its own part of it.

    A study's hypothesis is that no latent stands out, and its p-value the smallest family-wise one
    of its ranked latents. Latents are counted at the level over the number of studies.
    """
    tested = [study for study in studies if study["flips"]]
    adjusted = holm([study["smallest"] for study in tested])
    for study in studies:
        p_values = study.pop("p_values")
        study["adjusted"] = math.nan
        study["stand_out_across"] = sum(p * len(tested) <= LEVEL for p in p_values)
    for study, value in zip(tested, adjusted, strict=True):
        study["adjusted"] = value
    limits = [study["smallest_possible"] * len(tested) for study in tested]
    return {
        "method": "Holm over studies, Bonferroni over studies for latents",
        "tested": len(tested),
        "stand_out": sum(study["stand_out"] > 0 for study in tested),
        "stand_out_across": sum(value <= LEVEL for value in adjusted),
        "out_of_reach": sum(limit > LEVEL for limit in limits),
        "smallest_possible": min(limits, default=math.nan),
        "flips_needed": math.ceil(len(tested) / LEVEL) - 1,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
