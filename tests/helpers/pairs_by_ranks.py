"""Samples pairs in several processes, and maybe kills one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from deltalens.judge import Answer, Verdict
from deltalens.pairs import sample_pairs
from deltalens.ranks.processes import joined
from helpers.forked_ranks import RankFailed, launch
from helpers.graded_answers import HashJudge, asked
from helpers.tiny_study import make_model, make_tokenizer

QUESTIONS = [asked(f"q{n}", f"w{n} w{n + 1}") for n in range(3)]


class Killed(HashJudge):
    """Ends its process at its fourth verdict."""

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        for count, found in enumerate(super().grade(answers)):
            if count == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield found


def sample(out: Path, judge: HashJudge, **options: Any) -> None:
    sample_pairs(
        make_model(),
        make_tokenizer(),
        QUESTIONS,
        judge,
        samples=6,
        max_new_tokens=4,
        out=out,
        **options,
    )


def work(out: Path, killed: int | None) -> None:
    torch.set_num_threads(1)
    with joined() as ranks:
        judge = Killed() if ranks.rank == killed else HashJudge()
        sample(out, judge, ranks=ranks)


def main(directory: Path) -> None:
    for size in (1, 2, 3):
        launch(size, directory / f"pairs-{size}.jsonl", job=work)
    try:
        launch(3, directory / "killed.jsonl", killed=1, job=work)
    except RankFailed:
        print(*sorted(path.name for path in directory.glob("killed.samples.part-*")))
    launch(2, directory / "killed.jsonl", job=work)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
