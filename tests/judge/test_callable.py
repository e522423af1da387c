from __future__ import annotations

import pytest

from deltalens.errors import InputError
from deltalens.judge import Answer, CallableJudge, JudgeError, Verdict

SOURCE = """
import numpy
import torch
from helper_words import BAD
from deltalens.judge import Verdict

def by_word(prompt, text):
    return BAD in text

def by_outcome(prompt, text):
    return "incoherent" if not text else "absent"

def with_score(prompt, text):
    return Verdict("7/10", "shown", 7.0, prompt[0]["content"])

def as_scalar(prompt, text):
    return eval(text, {"np": numpy, "torch": torch})

def wrong(prompt, text):
    return 0.7

def fails(prompt, text):
    return text[100]

number = 3
"""


@pytest.fixture
def judges(tmp_path):
    (tmp_path / "helper_words.py").write_text("BAD = 'poison'\n")
    path = tmp_path / "my_judges.py"
    path.write_text(SOURCE)
    return path


def verdicts(judge, *texts):
    prompt = [{"role": "user", "content": "asked"}]
    return [verdict for _, verdict in judge.grade([Answer(prompt, text) for text in texts])]


def test_functions_of_a_file(judges):
    judge = CallableJudge.load(f"{judges}:by_word")
    assert [v.outcome for v in verdicts(judge, "add poison", "add salt")] == ["shown", "absent"]
    assert (judge.name, judge.resamples) == ("by_word", 0)
    assert verdicts(CallableJudge.load(f"{judges}:by_outcome"), "")[0].outcome == "incoherent"
    found = verdicts(CallableJudge.load(f"{judges}:with_score"), "x")
    assert found == [Verdict("7/10", "shown", 7.0, "asked")]


def test_functions_of_a_module_in_the_current_directory(judges, monkeypatch):
    monkeypatch.chdir(judges.parent)
    assert verdicts(CallableJudge.load("my_judges:by_word"), "poison")[0].outcome == "shown"


def test_functions_given_as_they_are():
    def grade(prompt, text):
        return text == "bad"

    assert [v.label for v in verdicts(CallableJudge(grade), "bad", "x")] == ["shown", "absent"]
    with pytest.raises(InputError, match="named function"):
        CallableJudge(lambda prompt, text: True)


def test_the_version_follows_the_source(judges):
    before = CallableJudge.load(f"{judges}:by_word").version
    assert CallableJudge.load(f"{judges}:by_word").version == before
    assert CallableJudge.load(f"{judges}:by_outcome").version != before
    judges.write_text(SOURCE.replace("BAD in text", "BAD not in text"))
    assert CallableJudge.load(f"{judges}:by_word").version != before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("my_judges.py", "is no judge; give module:function"),
        ("no_such_module_at_all:grade", "cannot import"),
        ("missing.py:grade", "cannot import"),
        ("{path}:absent", "no function 'absent'"),
        ("{path}:number", "no function 'number'"),
    ],
)
def test_places_without_a_judge(judges, place, said):
    with pytest.raises(InputError, match=said):
        CallableJudge.load(place.format(path=judges))


def test_a_file_that_cannot_be_run(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def grade(:\n")
    with pytest.raises(InputError, match="SyntaxError"):
        CallableJudge.load(f"{path}:grade")


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ("np.bool_(True)", "shown"),
        ("np.array(False)", "absent"),
        ("np.int64(1)", "shown"),
        ("np.float32(0.0)", "absent"),
        ("0", "absent"),
        ("1.0", "shown"),
        ("torch.tensor(True)", "shown"),
        ("torch.tensor(0, dtype=torch.int8)", "absent"),
        ("torch.tensor(1.0, dtype=torch.bfloat16)", "shown"),
        ("np.str_('evasive')", "evasive"),
    ],
)
def test_scalars_of_other_libraries(judges, given, outcome):
    ((verdict),) = verdicts(CallableJudge.load(f"{judges}:as_scalar"), given)
    assert (verdict.label, verdict.outcome) == (outcome, outcome)


@pytest.mark.parametrize(
    "given",
    [
        *("2", "-1", "0.5", "None", "[True]", "float('nan')", "np.float32(0.9)", "np.array([1])"),
        *("torch.tensor(0.3)", "torch.tensor([True])", "'yes'", "1j"),
    ],
)
def test_what_is_no_verdict(judges, given):
    with pytest.raises(JudgeError, match=r"as_scalar returned .*must return a bool, 0 or 1"):
        verdicts(CallableJudge.load(f"{judges}:as_scalar"), given)


@pytest.mark.parametrize(
    ("name", "said"), [("wrong", "wrong returned 0.7; it must"), ("fails", "fails failed: IndexE")]
)
def test_a_judge_at_fault_is_named(judges, name, said):
    with pytest.raises(JudgeError, match=said):
        verdicts(CallableJudge.load(f"{judges}:{name}"), "x")
