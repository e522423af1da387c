"""A run as large as they come: a thousand latents, 150 pairs, and everything that a run may hold.

Its tokens are pieces of words of several scripts, as real vocabularies have them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deltalens.lm import Pair
from deltalens.study import Attribution, LatentLens, LensToken
from deltalens.study.tokens.effects import TokenEffects
from deltalens.trials.interpretation.store import Interpretation, append
from helpers.finished_run import (
    HOSTILE,
    add_detection,
    add_everything,
    add_examples,
    add_log_probs,
    make_result,
)

Texts = Callable[[], str]

VOCABULARY, DICTIONARY = 32_000, 16_384
_SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz",
    "абвгдежзийклмнопрстуфхцчшщыэюя",
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "अआइईउऊएऐओऔकखगघचछजझटठडढतथदधनपफबभमयरलवशषसह",
)
_SHARES = (90, 3, 3, 1, 1, 1)  # of tokens in each
_SYMBOLS = ("😀", "🇪🇺", "👩\u200d🔬", "…", "→", "\n", "\t", "  ", "<0x0A>", *HOSTILE)


def token_texts(seed: int = 0) -> Texts:
    """Tokens, some far more frequent than others."""
    draw = random.Random(seed)
    known = [_word(draw) for _ in range(VOCABULARY)] + list(_SYMBOLS)
    return lambda: known[min(int(draw.paretovariate(0.35)), len(known)) - 1]


def passages(texts: Texts, tokens: int) -> Texts:
    """So many tokens one after the other."""
    return lambda: "".join(texts() for _ in range(tokens))


def make_large_run(
    run: Path, *, latents: int = 1000, pairs: int = 150, steered: int = 100
) -> Attribution:
    """Prompts of 60 tokens, completions of 200, 30 windows of 31 tokens for each latent."""
    token = token_texts()
    text = passages(token, 200)
    small = make_result(latents=latents, pairs=pairs, tokens=60, texts=token, dictionary=DICTIONARY)
    assert small.token_effects is not None
    effects = small.token_effects
    words = [[token() for _ in range(60)] for _ in range(pairs)]
    result = replace(
        small,
        pairs=[
            Pair("".join(each), text(), text(), id=f"pair-{at}") for at, each in enumerate(words)
        ],
        lens=[_lens(latent, token) for latent in small.latents.tolist()],
        token_effects=TokenEffects(words, effects.values, effects.own),
    )
    result.save(run)
    add_everything(run, result, text, steered=steered)
    add_examples(run, result, lambda: _found(token), token)
    add_detection(run, result)
    add_log_probs(run, pairs, token, tokens=200)
    name, explained = passages(token, 6), passages(token, 60)
    for latent in result.latents[:steered].tolist():
        append(run, Interpretation(latent, "examples", name(), explained(), "judge", "v1", "raw"))
    return result


def _word(draw: random.Random) -> str:
    letters = draw.choices(_SCRIPTS, _SHARES)[0]
    begin = " " if draw.random() < 0.6 else ""
    return begin + "".join(draw.choices(letters, k=draw.choice((2, 3, 4, 5, 6, 8))))


def _lens(latent: int, text: Texts) -> LatentLens:
    ends = [[LensToken(text(), n, 0.51234 - n / 50) for n in range(20)] for _ in range(2)]
    return LatentLens(latent, *ends)


def _found(text: Texts) -> dict[str, Any]:
    """Examples as `examples` collects them: most activations are zero."""
    draw = torch.rand(20, 31).mul(9).clamp_min(6).sub(6).double()
    windows = [
        {
            "text": at,
            "position": 7 * at,
            "activation": float(values.max()),
            "peak": int(values.argmax()),
            "tokens": [text() for _ in range(31)],
            "activations": values.tolist(),
        }
        for at, values in enumerate(draw)
    ]
    quantiles = [{"least": 0.5, "largest": 2.0, "windows": windows[:1]} for _ in range(10)]
    return {
        "tokens": 1_000_000,
        "active": 3000,
        "frequency": 0.003,
        "mean": 0.1,
        "max": 3.0,
        "windows": 2500,
        "histogram": [[0.5 * 2**at, 900 // (at + 1)] for at in range(8)],
        "top": windows,
        "quantiles": quantiles,
    }
