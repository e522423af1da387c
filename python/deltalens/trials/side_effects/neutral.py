"""What neutral texts say of each condition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.result import Direction
from deltalens.trials.side_effects.effects import NeutralEffect
from deltalens.trials.side_effects.estimate import ratio, share
from deltalens.trials.side_effects.log import (
    Effects,
    TextEffect,
    effects_path,
    read_effects,
    texts_kept,
)


def neutral_effects(run: str | Path, direction: Direction) -> dict[Condition, NeutralEffect]:
    """Of every condition of an arm that all texts have been read with, and of none; empty where no
    text has been read."""
    return estimated(read_effects(effects_path(run, direction)), texts_kept(run))


def estimated(effects: Effects, texts: int) -> dict[Condition, NeutralEffect]:
    """As :func:`neutral_effects`, of ``texts`` texts."""
    by_condition: dict[Condition, dict[int, TextEffect]] = {}
    for at, effect in effects.items():
        by_condition.setdefault(at.condition, {})[at.text] = effect
    whole = {
        condition: [found[text] for text in range(texts)]
        for condition, found in by_condition.items()
        if texts and all(text in found for text in range(texts))
    }
    if not whole:
        return {}
    return {
        UNSTEERED: _unsteered(whole[min(whole, key=str)]),
        **{condition: _steered(found) for condition, found in whole.items()},
    }


def _steered(effects: Sequence[TextEffect]) -> NeutralEffect:
    sizes = [effect.tokens for effect in effects]
    return NeutralEffect(
        loss=ratio([effect.loss for effect in effects], sizes),
        rise=ratio([effect.loss - effect.unsteered for effect in effects], sizes),
        changed=share([effect.changed for effect in effects], sizes),
        texts=len(effects),
        tokens=sum(sizes),
    )


def _unsteered(effects: Sequence[TextEffect]) -> NeutralEffect:
    sizes = [effect.tokens for effect in effects]
    loss = ratio([effect.unsteered for effect in effects], sizes)
    return NeutralEffect(loss, None, None, texts=len(effects), tokens=sum(sizes))
