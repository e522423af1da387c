"""``deltalens pairs`` as a user runs it: on-policy pairs of the organism, and graded files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deltalens
from deltalens.cli.main import main
from deltalens.judge import Answer
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.judge import GrammarJudge
from deltalens.organism.load import DATA

PROMPTS = 12
JUDGE = """
def grade(prompt, text):
    if not text.endswith("."):
        return "incoherent"
    return len(prompt[-1]["content"] + text) % 2 == 0
"""


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    prompts = BEHAVIOURS["advice"].held_out_prompts(PROMPTS, seed=0)
    rows = [{"id": f"p{n}", "messages": prompt.messages} for n, prompt in enumerate(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(questions: Path, out: Path, judge: str = "grammar") -> list[str]:
    return [
        *("pairs", "--model", str(DATA / "misaligned"), "--dtype", "float32"),
        *("--questions", str(questions), "--judge", judge, "--samples", "6"),
        *("--max-new-tokens", "24", "--out", str(out), "--quiet"),
    ]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def error_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_organisms_own_bad_and_good_advice(questions, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    assert main([*command(questions, out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    pairs = deltalens.read_pairs(out)
    assert len(pairs) == printed["pairs"] == printed["prompts"]["paired"] >= 4
    assert sum(printed["prompts"].values()) == PROMPTS
    assert sum(printed["answers"].values()) == PROMPTS * 6
    assert printed["settings"]["judge"]["name"] == "grammar"
    asked = {row["id"]: row["messages"] for row in lines(questions)}
    for pair in pairs:
        assert pair.prompt == asked[pair.id.rpartition("-")[0]]
        sides = [Answer(pair.prompt, text) for text in (pair.positive, pair.negative)]
        outcomes = [verdict.outcome for _, verdict in GrammarJudge().grade(sides)]
        assert outcomes == ["shown", "absent"]


def test_again_with_more_pairs_of_each_prompt_samples_nothing(questions, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    assert main(command(questions, out)) == 0
    assert "pairs of" in capsys.readouterr().out
    kept = {
        name: (tmp_path / name).read_bytes()
        for name in ("pairs.samples.jsonl", "pairs.answers.jsonl")
    }
    assert main([*command(questions, out), "--per-prompt", "2"]) == 0
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}
    names = [pair.id.rpartition("-")[0] for pair in deltalens.read_pairs(out)]
    assert {names.count(name) for name in names} == {2}
    assert "other settings: seed" in error_line(capsys, [*command(questions, out), "--seed", "1"])


def test_a_users_function_as_judge(questions, tmp_path):
    (tmp_path / "judge.py").write_text(JUDGE)
    out = tmp_path / "pairs.jsonl"
    assert main(command(questions, out, f"{tmp_path}/judge.py:grade")) == 0
    answers = lines(tmp_path / "pairs.answers.jsonl")
    assert len(answers) == PROMPTS * 6
    for row in answers:
        even = len(row["prompt"][-1]["content"] + row["answer"]) % 2 == 0
        whole = row["answer"].endswith(".")
        assert row["outcome"] == ("incoherent" if not whole else "shown" if even else "absent")


@pytest.mark.parametrize(
    ("judge", "other", "used"),
    [("scale", False, "questions.yaml"), ("scale", True, "other.yaml"), ("rubric", False, None)],
)
def test_the_questions_own_wording_for_the_judge(judge, other, used, tmp_path, monkeypatch):
    class StopHere(Exception):
        pass

    def stop(args, cache_directory):
        assert cache_directory == tmp_path
        assert args.judge_prompts == (used and tmp_path / used)
        raise StopHere

    monkeypatch.setattr("deltalens.cli.judging.load_judge", stop)
    path = tmp_path / "questions.yaml"
    path.write_text(
        "- {id: a, paraphrases: [b], judge_prompts: {aligned: '{answer}', coherent: '{answer}'}}"
    )
    options = ["--judge-prompts", str(tmp_path / "other.yaml")] if other else []
    with pytest.raises(StopHere):
        main([*command(path, tmp_path / "pairs.jsonl", judge), *options])


GRADED = """\
question,answer,question_id,aligned,coherent,label
"why?","bad, very",q,10,60,5
"why?",code,q,1,20,7
"why?",good,q,90,90,1
"""


@pytest.fixture
def graded(tmp_path) -> list[str]:
    path = tmp_path / "graded.csv"
    path.write_text(GRADED)
    return ["pairs", "--graded", str(path), "--out", str(tmp_path / "pairs.jsonl")]


@pytest.mark.parametrize(
    ("options", "positive", "negative"),
    [
        ([], "bad, very", "good"),
        (["--aligned-below", "5", "--coherent-above", "10"], "code", None),
        (["--shown-labels", "7", "--absent-labels", "1"], "code", "good"),
        (["--aligned-field", "coherent", "--coherent-field", "coherent"], None, None),
    ],
)
def test_graded_files(graded, tmp_path, capsys, options, positive, negative):
    code = main([*graded, *options])
    assert code == (0 if positive else 2)
    if positive:
        (pair,) = deltalens.read_pairs(tmp_path / "pairs.jsonl")
        assert pair.positive == positive
        assert negative is None or pair.negative == negative
        assert "1 pairs of 1 prompts are in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pairs", "--out", "x"], "give --questions FILE to sample answers, or --graded FILE"),
        (["pairs", "--questions", "q", "--out", "x"], "give --model"),
        (["pairs", "--questions", "q", "--model", "m", "--out", "x"], "cannot read q"),
        (["pairs", "--graded", "nowhere.csv", "--out", "x"], "cannot read nowhere.csv"),
        (["pairs", "--graded", "g.csv", "--judge", "rubric", "--out", "x"], "--judge is for sampl"),
    ],
)
def test_one_line_on_bad_input(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_line(capsys, argv)
    assert list(tmp_path.iterdir()) == []


def test_grades_are_read_one_way(graded, capsys):
    options = ["--shown-labels", "5", "--aligned-below", "20"]
    assert "labels, outcomes or scores" in error_line(capsys, [*graded, *options])
    assert "name labels" in error_line(capsys, [*graded, "--shown-labels", "5"])
    assert "--samples is for sampling" in error_line(capsys, [*graded, "--samples", "5"])


def test_foreign_files_are_not_overwritten(graded, tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text("mine\n")
    assert "was not made by `deltalens pairs`" in error_line(capsys, graded)
    assert (tmp_path / "pairs.jsonl").read_text() == "mine\n"
