"""What makes a sweep this sweep, kept beside its completions and held against a continuation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.cost.dry_run import is_dry
from deltalens.errors import InputError
from deltalens.lm.points.names import saved_name
from deltalens.lm.sampling.engine import EARLIER, Draw
from deltalens.lm.steering import SteerTokens
from deltalens.pairs.row import Prompt
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.parts import parts_of
from deltalens.trials.interventions.intervention import ADD
from deltalens.trials.log import completions_path
from deltalens.trials.result import SIGNS, STEERING_DIRECTORY

SETTINGS_FILE = "settings.json"
PROMPTS_FILE = "prompts.jsonl"
REFERENCES = "references"  # a part of the settings: latent → what strength 1 clamps it to


@dataclass(frozen=True)
class Generation:
    """How completions are sampled; with the model, the SAE and the prompts it fixes every text."""

    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0
    steer_tokens: SteerTokens = "all"

    @property
    def draw(self) -> Draw:
        """How tokens are drawn, whatever steers them."""
        return Draw(self.max_new_tokens, self.temperature, self.seed)


def prompts_fingerprint(prompts: Sequence[list[int]]) -> str:
    """Hash of the prompts' token ids."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()[:32]


def keep_settings(run: Path, wanted: Mapping[str, dict[str, Any]]) -> None:
    """Write down the settings of a sweep's parts: ``sampling``, and each direction's own.

    Raises :class:`InputError` naming what differs from those that completions were made with.
    """
    path = run / STEERING_DIRECTORY / SETTINGS_FILE
    differing = [
        f"{key} ({there.get(key)} there, {value} here)"
        for name, there in _in_force(run).items()
        for key, value in wanted.get(name, {}).items()
        if there.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{path.parent} holds a sweep with other settings: {', '.join(differing)}; "
            "use the same, or delete it"
        )
    if is_dry():
        return
    kept = {**read_settings(run), **wanted}
    write_text(path, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def kept_settings(run: Path, name: str) -> dict[str, Any]:
    """What the part ``name`` was made with; empty before its first completion."""
    return _in_force(run).get(name, {})


def kept_references(run: Path) -> dict[int, float]:
    """What latents of the sweep that is there are clamped to, at strength 1."""
    if not _in_force(run):
        return {}
    path = run / STEERING_DIRECTORY / SETTINGS_FILE
    try:
        kept = read_settings(run).get(REFERENCES, {})
        return {int(latent): float(value) for latent, value in kept.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); delete the sweep") from error


def _in_force(run: Path) -> dict[str, dict[str, Any]]:
    """The settings of parts with completions; others bind nothing. Names of sites as now, and the
    engine and the intervention that there were before there was a choice."""
    paths = {direction: completions_path(run, direction) for direction in SIGNS}
    made = {name for name, path in paths.items() if _begun(path)}
    kept = read_settings(run)
    parts = {name: kept[name] for name in ("sampling", *made) if made and name in kept}
    if "sampling" in parts:
        site = saved_name(parts["sampling"]["site"])
        earlier = {"engine": EARLIER, "intervention": ADD.name}
        parts["sampling"] = {**earlier, **parts["sampling"], "site": site}
    return parts


def _begun(path: Path) -> bool:
    return any(log.exists() and log.stat().st_size for log in (path, *parts_of(path)))


def keep_prompts(run: Path, prompts: Sequence[Prompt]) -> None:
    """Write the prompts, one JSON value a line, for whoever shows the completions."""
    lines = [json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts]
    write_text(run / STEERING_DIRECTORY / PROMPTS_FILE, "".join(lines))


def read_prompts(run: str | Path) -> list[Prompt]:
    """The prompts of a sweep, by the numbers that its completions have."""
    path = Path(run) / STEERING_DIRECTORY / PROMPTS_FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [parse_json(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the sweep's prompts: {path}: {error}") from error


def read_settings(run: str | Path) -> dict[str, Any]:
    """Everything that was kept by :func:`keep_settings`; empty where there is nothing."""
    return _read(Path(run) / STEERING_DIRECTORY / SETTINGS_FILE)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); delete the sweep") from error
