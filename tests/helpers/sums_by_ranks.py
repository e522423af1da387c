"""A baseline, Δ-activations and examples by several processes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

import deltalens
from deltalens.examples.reader import Reader
from deltalens.ranks.processes import joined
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.sae import save_saelens
from deltalens.study.activation.pieces.store import PieceStore
from helpers.forked_ranks import Job, RankFailed, launch
from helpers.number_tokenizers import large
from helpers.tiny_study import SITE, make_model
from helpers.tokenizers import llama_3

SIZES = (1, 2, 3, 5)
N_LATENTS = 90
SOME = deltalens.Sinks(1.2)  # leaves out some tokens that are not the first
KILLED = [("mean", 1), ("mean", 3), ("models", 2), ("examples", 1), ("examples", 3)]
DIFFERENCE = {"site": 1, "k": 30, "batch_tokens": 90, "sinks": SOME}
cut = importlib.import_module("deltalens.study.activation.pieces.cut")


def small_pieces() -> None:
    """Some pieces of few texts."""
    cut.ROWS, cut.MEASURED_TOKENS = 4, 60


@cache
def tokenizer() -> Any:
    """Of 33,000 words, without a BOS."""
    return large()


@cache
def bos_tokenizer() -> Any:
    """Byte-level, with a BOS before every text."""
    return llama_3()


@cache
def wide_model(seed: int = 0) -> Any:
    """Float64, with 576 dimensions."""
    sizes = {
        "hidden_size": 576,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 256,
    }
    vocabulary = {"vocab_size": len(bos_tokenizer()), "bos_token_id": bos_tokenizer().bos_token_id}
    return make_model(torch.float64, seed=seed, **sizes, **vocabulary)


@cache
def word_model() -> Any:
    """Small, of the vocabulary of 33,000."""
    vocabulary = {"vocab_size": len(tokenizer()), "bos_token_id": None}
    return make_model(**vocabulary, eos_token_id=tokenizer().eos_token_id)


def texts() -> list[str]:
    """Of one word to fifty."""
    return [
        " ".join(f"word {n * n % 97} is" for n in range(at, at + 1 + at * at % 17))
        for at in range(25)
    ]


def corpus() -> list[str]:
    """Of more than five blocks of contexts, with words that come again and again."""
    return [
        " ".join(f"wx{(at * 31 + n * n) % 200}" for n in range(3 + at % 20)) for at in range(140)
    ]


def sae(directory: Path, width: int, site: int) -> Any:
    """Random, four latents a token."""
    if not directory.exists():
        rows = torch.randn(N_LATENTS, width, generator=torch.Generator().manual_seed(width))
        save_saelens(
            directory,
            W_enc=rows.T.contiguous(),
            b_enc=torch.zeros(N_LATENTS),
            W_dec=rows,
            b_dec=torch.zeros(width),
            cfg={"k": 4, "metadata": {"hook_name": f"blocks.{site}.hook_resid_post"}},
        )
    return deltalens.load_sae(directory)


def mean(directory: Path, ranks: Ranks = ALONE, **changes: Any) -> Any:
    """The baseline of two sites, with the mean of latents."""
    saes = [sae(directory.parent / f"wide-{site}", 576, site) for site in (0, 1)]
    given = {"out": directory / "baselines", "context": 40, "sinks": SOME, **changes}
    sites = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    return deltalens.mean_activation(
        wide_model(),
        bos_tokenizer(),
        texts(),
        site=sites,
        sae=saes,
        batch_tokens=90,
        ranks=ranks,
        **given,
    )


def models(directory: Path, ranks: Ranks = ALONE, **changes: Any) -> Any:
    """Δ-activation between two models."""
    return deltalens.delta_activation(
        wide_model(1),
        wide_model(),
        bos_tokenizer(),
        texts(),
        sae(directory.parent / "wide-1", 576, 1),
        **{**DIFFERENCE, "out": directory / "models", "ranks": ranks, **changes},
    )


def completions(directory: Path, ranks: Ranks = ALONE, **changes: Any) -> Any:
    """Δ-activation between two completions of pairs."""
    chats = [[{"role": "user", "content": text}] for text in texts()]
    return deltalens.delta_activation_of_pairs(
        wide_model(),
        bos_tokenizer(),
        [deltalens.Pair(chat, "it is 7", f"no, {n} there") for n, chat in enumerate(chats)],
        sae(directory.parent / "wide-1", 576, 1),
        tokens="all",
        **{**DIFFERENCE, "out": directory / "completions", "ranks": ranks, **changes},
    )


def examples(directory: Path, ranks: Ranks = ALONE, **changes: Any) -> dict[str, Any]:
    """Of all latents, in contexts of five tokens."""
    given = {"context": 5, "top": 6, "bins": 3, "per_bin": 2, "before": 3, "after": 2, **changes}
    return deltalens.collect_examples(
        word_model(),
        tokenizer(),
        corpus(),
        sae(directory.parent / "small", 24, SITE),
        directory / "examples",
        site=SITE,
        save_seconds=0,
        ranks=ranks,
        **given,
    )


WORKS = {"mean": mean, "models": models, "completions": completions, "examples": examples}


def everything(directory: Path, killed: int | None) -> None:
    """One process's part of all of it."""
    torch.set_num_threads(1)
    small_pieces()
    with joined() as ranks:
        for work in WORKS.values():
            work(directory, ranks)


def one_of_them(directory: Path, killed: int | None) -> None:
    """One process's part of the work that the directory is named after; every piece or block that
    is done is written down, and process ``killed`` ends before it writes down its second."""
    torch.set_num_threads(1)
    small_pieces()
    work, _, _ = directory.name.partition("-")
    owner, name = (Reader, "rows") if work == "examples" else (PieceStore, "put")
    real, calls = getattr(owner, name), []
    with joined() as ranks:

        def noting(self: Any, piece: Any, *rest: Any) -> Any:
            found = real(self, piece, *rest)
            calls.append(piece)
            if ranks.rank == killed and len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            with directory.with_suffix(".done").open("a") as log:
                log.write(f"{piece.number}\n")
            return found

        setattr(owner, name, noting)
        WORKS[work](directory, ranks)


def launched(size: int, out: Path, killed: int | None, job: Job) -> bool:
    """Whether so many processes have done ``job``."""
    try:
        launch(size, out, killed, job=job)
    except RankFailed:
        return False
    return True


def main(directory: Path) -> None:
    for made in (wide_model(), wide_model(1), word_model()):
        assert not made.training
    sae(directory / "small", 24, SITE)
    for site in (0, 1):
        sae(directory / f"wide-{site}", 576, site)
    for size in SIZES:
        assert launched(size, directory / f"run-{size}", None, everything)
    for name, size in KILLED:
        out = directory / f"{name}-{size}"
        assert not launched(size, out, size - 1, one_of_them)
        print(*sorted(str(path.relative_to(directory)) for path in out.rglob("*.safet*")))
        assert launched(max(1, size - 1), out, None, one_of_them)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
