"""A ranking, and one of its latents, as they show themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from deltalens.errors import InputError
from deltalens.sae.formats.neuronpedia import latent_address, name_of_run
from deltalens.visible.values import number, p_value, tokens
from deltalens.visible.view import ROWS, Marked, Table, View

_COLUMNS = ("rank", "latent", "score", "p", "push", "presence", "promotes")
_UNSURE = "?"
_PAIRS = 5
_TOKENS = 10
_PROMPTS = 3  # with values of tokens
_AROUND = 120  # tokens of each, around the largest


def ranking_view(result: Any) -> View:
    """The first latents of an :class:`~deltalens.Attribution`."""
    total = len(result.latents)
    rows = [_row(result, place) for place in range(min(ROWS, total))]
    lines = [
        f"{len(result.pairs):,} pairs; {result.stand_out} of these latents stand out (p ≤ 0.05)"
    ]
    if any(row[4].endswith(_UNSURE) for row in rows):
        lines.append(f"{_UNSURE}: push is within three standard errors of zero")
    title = f"Δ-attribution at {result.site}"
    return View(title, lines, [Table(_COLUMNS, rows, total, left=_COLUMNS[-1:])])


def latent_view(result: Any, latent: int, *, embed: bool = False) -> View:
    """One latent: its numbers, its tokens, the pairs that its score comes from, and its page at
    Neuronpedia, on demand in a frame."""
    place = _place(result, latent)
    name = name_of_run(result.metadata)
    if embed and name is None:
        raise InputError(
            "Neuronpedia's name of this SAE is not known; attribute with --neuronpedia "
            "MODEL/LAYER-SOURCE, or show the latent without embed"
        )
    _, _, _, p, push, presence, _ = _row(result, place)
    lens = result.lens_of(place)
    lines = [
        f"score {number(float(result.scores[place]))} ± {float(result.stderr[place]):.0e}, p {p}",
        f"push {push} ± {float(result.push_stderr[place]):.0e}, presence {presence}",
        *(
            f"{end}: {tokens(found, _TOKENS)}"
            for end, found in (("promotes", lens.promotes), ("suppresses", lens.suppresses))
            if found
        ),
    ]
    title = f"Latent {latent}, rank {place + 1} of {len(result.latents)}, at {result.site}"
    return View(
        title,
        lines,
        [_pairs(result, place)],
        list(_prompts(result, place)),
        links=[] if name is None else [latent_address(name, latent)],
        frame=latent_address(name, latent, embed=True) if embed and name else None,
    )


def _place(result: Any, latent: int) -> int:
    listed = result.latents.tolist()
    if latent not in listed:
        raise InputError(
            f"latent {latent} is not among the {len(listed)} that the study ranks; choose one of "
            "result.latents, or attribute with a larger k"
        )
    return listed.index(latent)


def _row(result: Any, place: int) -> list[str]:
    return [
        str(place + 1),
        str(int(result.latents[place])),
        number(float(result.scores[place])),
        p_value(float(result.p_value[place])),
        number(float(result.push[place])) + _UNSURE * bool(result.sign_unsure[place]),
        number(float(result.presence[place])),
        tokens(result.lens_of(place).promotes),
    ]


def _prompts(result: Any, place: int) -> Iterator[Marked]:
    """Where the score comes from in the pairs of the largest differences, of those with tokens."""
    effects = result.token_effects
    if effects is None or place >= effects.values[0].shape[1]:
        return
    for pair in _largest(result, place, len(effects.values), _PROMPTS):
        values = effects.values[pair][:, place].tolist()
        peak = max(range(len(values)), key=lambda at: abs(values[at]))
        start = max(0, min(peak - _AROUND // 2, len(values) - _AROUND))
        pieces = list(zip(effects.texts(pair), values, strict=True))[start : start + _AROUND]
        some = f"{len(pieces)} of the {len(values)}" if len(pieces) < len(values) else "the"
        yield Marked(f"{some} counted tokens of pair {pair + 1}, by δ(C) − δ(C′):", pieces)


def _largest(result: Any, place: int, among: int, count: int) -> list[int]:
    """The pairs of the largest differences, whichever sign they have, among the first."""
    values = result.per_pair[:among, place]
    return values.abs().argsort(descending=True, stable=True)[:count].tolist()


def _pairs(result: Any, place: int) -> Table:
    values = result.per_pair[:, place]
    largest = _largest(result, place, len(values), _PAIRS)
    rows = [
        [
            str(at + 1),
            number(float(values[at])),
            *map(_text, (result.pairs[at].prompt, result.pairs[at].positive)),
            _text(result.pairs[at].negative),
        ]
        for at in largest
    ]
    texts = ("prompt", "positive", "negative")
    return Table(("pair", "score", *texts), rows, len(values), left=texts)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
