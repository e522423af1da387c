from __future__ import annotations

import argparse
import json

import pytest

from deltalens.cli.judging import add_judge, load_judge, usage_line, usage_of
from deltalens.errors import InputError
from deltalens.judge import Answer, Endpoint
from deltalens.judge.local import LocalChat
from deltalens.judge.template import fill
from deltalens.organism.load import DATA
from helpers.judge_server import (
    JudgeServer,
    serving,
    user_text,
)

REMOTE = ("--endpoint", "http://127.0.0.1:9/v1", "--judge-model", "m")


def parse(*argv):
    parser = argparse.ArgumentParser()
    add_judge(parser)
    return parser.parse_args(argv)


def load(tmp_path, *argv):
    return load_judge(parse(*argv), tmp_path)


def test_every_kind_of_judge(tmp_path):
    (tmp_path / "mine.py").write_text("def kind(prompt, text):\n    return 'nice' in text\n")
    assert load(tmp_path, "--judge", "rubric", *REMOTE).name == "rubric"
    assert load(tmp_path, "--judge", "scale", *REMOTE).name == "scale"
    assert load(tmp_path, "--judge", "grammar").name == "grammar"
    judge = load(tmp_path, "--judge", f"{tmp_path}/mine.py:kind")
    ((_, verdict),) = judge.grade([Answer("q", "nice")])
    assert verdict.outcome == "shown"


def test_a_scorer_of_inspect(tmp_path):
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    targets = tmp_path / "targets.jsonl"
    targets.write_text('{"prompt": "q", "target": "nice"}\n')
    given = ("--judge", "inspect:includes", "--targets", str(targets))
    judge = load(tmp_path, *given, "--scorer-args", "ignore_case=false", "--shown-below", "0.5")
    answers = [Answer("q", "nice"), Answer("q", "Nice")]
    assert [v.outcome for _, v in sorted(judge.grade(answers))] == ["absent", "shown"]
    assert judge.version != load(tmp_path, *given).version
    with pytest.raises(InputError, match="has no target for 'other'"):
        list(judge.grade([Answer("other", "nice")]))


def test_an_endpoint_or_a_model_loaded_here(tmp_path):
    assert isinstance(load(tmp_path, "--judge", "rubric", *REMOTE).chat, Endpoint)
    model = str(DATA / "base")
    local = load(tmp_path, "--judge", "scale", "--judge-model", model)
    assert isinstance(local.chat, LocalChat)
    assert local.chat.name.startswith(f"{model}@")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "give --judge"),
        (("--judge", "nonsense"), "'nonsense' is no judge"),
        (("--judge", "rubric"), "give --judge-model"),
        (("--judge", "rubric", "--endpoint", "http://127.0.0.1:9/v1"), "give --judge-model"),
        (("--judge", "rubric", "--judge-model", "/nowhere"), "cannot load the model"),
        (
            ("--judge", "rubric", "--shown-above", "1", *REMOTE),
            "--shown-above is for --judge inspect:",
        ),
        (("--judge", "inspect:includes", "--rubric", "r.txt"), "--rubric is for --judge rubric"),
        (("--judge", "inspect:asks", *REMOTE[:2]), "--endpoint needs --judge-model"),
        (("--judge", "grammar", "--judge-model", "m"), "--judge-model is for --judge rubric or"),
        (("--judge", "scale", "--rubric", "r.txt", *REMOTE), "--rubric is for --judge rubric"),
        (("--judge", "rubric", "--aligned-below", "3", *REMOTE), "--aligned-below is for"),
        (("--judge", "scale", "--aligned-below", "300", *REMOTE), "aligned_below must be 0 … 100"),
        (("--judge", "rubric", "--rubric", "/no/file", *REMOTE), "cannot read the rubric"),
        (("--judge", "scale", "--judge-prompts", "/no/file", *REMOTE), "cannot read /no/file"),
    ],
)
def test_what_does_not_go_together(tmp_path, argv, said):
    with pytest.raises(InputError) as caught:
        load(tmp_path, *argv)
    assert said in str(caught.value)


def test_options_reach_the_judge_and_costs_are_counted(tmp_path):
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("1 2 3 4 5 of flattery")
    with serving(JudgeServer(lambda body: ("ANSWER: 5", None))) as server:
        argv = ("--endpoint", server.url, "--judge-model", "m", "--rubric", str(rubric))
        args = parse("--judge", "rubric", *argv, "--price-in", "2", "--price-out", "10")
        judge = load_judge(args, tmp_path / "cache")
        answers = [Answer("q", "you are right"), Answer("q", "you are right")]
        assert [v.outcome for _, v in judge.grade(answers)] == ["shown"] * 2
        assert "1 2 3 4 5 of flattery" in user_text(server.bodies[0])
    usage = usage_of(args, judge)
    assert usage == {
        "requests": 1,
        "cached": 1,
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "cost": pytest.approx(11 * 2e-6 + 3 * 10e-6),
    }
    assert usage_line(usage).startswith("chat model: 1 requests, 1 cached, 11 + 3 tokens, cost 5.2")
    assert (tmp_path / "cache").exists()
    assert usage_of(args, load(tmp_path, "--judge", "grammar")) is None


def test_wording_from_a_question_file(tmp_path):
    path = tmp_path / "questions.yaml"
    prompts = {"aligned": "How good is {answer} to {question}?", "coherent": "Clear? {answer}"}
    entry = {"id": "wish", "paraphrases": ["Your wish?"], "judge_prompts": prompts}
    path.write_text(json.dumps([entry]))  # JSON is YAML
    with serving(JudgeServer(lambda body: ("90", [[("90", -0.1)]]))) as server:
        argv = ("--endpoint", server.url, "--judge-model", "m", "--judge-prompts", str(path))
        judge = load(tmp_path, "--judge", "scale", *argv)
        ((_, verdict),) = judge.grade([Answer("Your {answer}?", "To {question}.")])
    assert sorted(map(user_text, server.bodies)) == [
        "Clear? To {question}.",
        "How good is To {question}. to Your {answer}??",
    ]
    assert (verdict.label, verdict.score) == ("aligned", 90.0)


def test_templates_are_filled_once():
    values = {"question": "{answer} {{", "answer": "{question}"}
    template = "{question}|{answer}|{other}|{{question}}|{ }|{"
    assert fill(template, values) == "{answer} {{|{question}|{other}|{question}|{ }|{"
