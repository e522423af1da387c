"""Inspect's scorers as judges: its own, those of files, and those that ask a language model."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")

from deltalens.errors import InputError
from deltalens.judge import Answer, JudgeError
from deltalens.judge.scorers import ScorerJudge, ShownWhen
from deltalens.judge.scorers.grading import Grader
from helpers.judge_server import JudgeServer, serving, user_text

pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter")  # tenacity's, to Inspect

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Which number?"}]
ANSWERS = [Answer(CHAT, f"the number is {n}") for n in range(5)] + [Answer("It is", " 3 \ud800")]
FILE = """
from inspect_ai.scorer import Score, accuracy, mean, scorer
from inspect_ai.model import get_model

@scorer(metrics=[mean()])
def length(limit: int = 10):
    async def score(state, target):
        return Score(value=len(state.output.completion) / limit, explanation=state.input_text)
    return score

@scorer(metrics=[mean()])
def given(value):
    async def score(state, target):
        return None if value is None else Score(value=value, explanation="why")
    return score

@scorer(metrics=[mean()])
def fails():
    async def score(state, target):
        if "3" in state.output.completion:
            raise RuntimeError("no threes")
        return Score(value=True)
    return score

@scorer(metrics=[accuracy()])
def asks():
    async def score(state, target):
        said = await get_model().generate(state.output.completion)
        return Score(value="C" if "yes" in said.completion else "I", explanation=said.completion)
    return score

def nothing():
    return 1
"""


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "my_scorers.py"
    path.write_text(FILE)
    return path


def outcomes(judge, answers=ANSWERS):
    found = dict(judge.grade(answers))
    assert found.keys() == set(range(len(answers)))
    return [found[number].outcome for number in range(len(answers))]


def three(prompt):
    assert prompt in (CHAT, "It is")
    return ["3", "III"]


def test_one_of_inspects_own():
    judge = ScorerJudge("includes", target=three, targets="x")
    expected = ["shown" if "3" in answer.text else "absent" for answer in ANSWERS]
    assert outcomes(judge) == expected
    assert judge.name == "inspect-includes"
    assert judge.resamples == 0


def test_what_it_is_made_with():
    judge = ScorerJudge("match", {"location": "begin"}, target=lambda prompt: "the number")
    assert outcomes(judge) == ["shown"] * 5 + ["absent"]


def test_a_scorer_that_looks_for_a_target_is_not_given_an_empty_one():
    with pytest.raises(JudgeError, match="the scorer looks for a target; give --targets"):
        outcomes(ScorerJudge("includes"))


def test_numbers_and_where_the_behaviour_begins(home):
    place = f"{home}@length"
    above = ScorerJudge(place, {"limit": 1}, shown=ShownWhen(above=10))
    assert outcomes(above) == ["shown"] * 5 + ["absent"]
    below = ScorerJudge(place, {"limit": 1}, shown=ShownWhen(below=10))
    assert outcomes(below) == ["absent"] * 5 + ["shown"]
    (verdict,) = (v for n, v in above.grade(ANSWERS[:1]))
    assert (verdict.score, verdict.label, verdict.raw) == (15.0, "15.0", "Which number?")
    with pytest.raises(JudgeError, match=r"gave 1\.5; say with --shown-above or --shown-below"):
        outcomes(ScorerJudge(place))


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("C", "shown"),
        ("I", "absent"),
        ("N", "evasive"),
        (True, "shown"),
        (False, "absent"),
        (1, "shown"),
        (0.0, "absent"),
        ("yes", "shown"),
        (float("nan"), "unparsable"),
        (None, "unparsable"),
    ],
)
def test_every_kind_of_score(home, value, outcome):
    judge = ScorerJudge(f"{home}@given", {"value": value})
    assert outcomes(judge, ANSWERS[:2]) == [outcome] * 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("P", "gave 'P'; say with --shown-above"),
        ("worse", "gave 'worse', which is neither CORRECT"),
        ([1, 2], r"gave \[1, 2\], which is neither"),
        ({"a": 1}, "which is neither CORRECT"),
    ],
)
def test_scores_that_mean_nothing(home, value, said):
    with pytest.raises(JudgeError, match=said):
        outcomes(ScorerJudge(f"{home}@given", {"value": value}))


def test_partial_credit_where_that_is_said(home):
    judge = ScorerJudge(f"{home}@given", {"value": "P"}, shown=ShownWhen(above=0.4))
    assert outcomes(judge, ANSWERS[:1]) == ["shown"]


def test_a_scorer_that_fails_ends_it_and_what_came_stays(home):
    judge, came = ScorerJudge(f"{home}@fails", at_once=1), []
    with pytest.raises(JudgeError, match="the scorer failed: RuntimeError: no threes; answers so"):
        came.extend(judge.grade(ANSWERS))
    assert [number for number, _ in came] == [0, 1, 2]


def test_within_a_running_loop(home):
    async def graded():
        return outcomes(ScorerJudge("includes", target=three))

    assert asyncio.run(graded()).count("shown") == 2


def test_the_version_is_of_all_that_verdicts_depend_on(home):
    place = f"{home}@length"
    same = {ScorerJudge(place).version, ScorerJudge(place, at_once=2).version}
    others = [
        ScorerJudge(place, {"limit": 3}),
        ScorerJudge(place, shown=ShownWhen(above=1)),
        ScorerJudge(place, shown=ShownWhen(below=1)),
        ScorerJudge(place, grader=Grader("mockllm/model")),
        ScorerJudge(place, grader=Grader("m", "http://127.0.0.1:1/v1")),
        ScorerJudge(place, target=three, targets="a"),
        ScorerJudge(f"{home}@fails"),
        ScorerJudge("includes"),
    ]
    home.write_text(FILE + "\n# changed\n")
    others.append(ScorerJudge(place))
    assert len(same) == 1
    assert len({*same, *(one.version for one in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("place", "arguments", "said"),
    [
        ("nothing_of_the_kind", {}, "inspect_ai.scorer has no scorer 'nothing_of_the_kind'"),
        ("no such", {}, "is no scorer; give inspect:name"),
        ("nowhere.py@length", {}, "cannot import the judge's nowhere.py"),
        ("FILE@missing", {}, "has no scorer 'missing'"),
        ("FILE@nothing", {}, "makes 1, which is no scorer"),
        ("includes", {"what": 1}, "cannot be made with {'what': 1}: .*; check --scorer-args"),
    ],
)
def test_refused(home, place, arguments, said):
    with pytest.raises(InputError, match=said):
        ScorerJudge(place.replace("FILE", str(home)), arguments)


def test_both_ends():
    with pytest.raises(InputError, match="above a number or below one; give one"):
        ShownWhen(above=1, below=2)
    with pytest.raises(InputError, match="must be a number"):
        ShownWhen(above=float("nan"))


def test_no_model_is_asked_that_was_not_named(home):
    with pytest.raises(
        JudgeError, match="the scorer failed: PrerequisiteError: No model specified"
    ):
        outcomes(ScorerJudge(f"{home}@asks"))


def replies(body):
    return "yes" if "is 2" in user_text(body) else "no", None


def test_a_scorer_that_asks_the_active_model(home):
    with serving(JudgeServer(replies, key="secret", delay=0.05)) as server:
        judge = ScorerJudge(
            f"{home}@asks", grader=Grader("grader", server.url, "secret"), at_once=3
        )
        assert outcomes(judge) == ["absent", "absent", "shown", "absent", "absent", "absent"]
        assert {body["model"] for body in server.bodies} == {"grader"}
        assert 1 < server.most <= 3
        assert outcomes(judge, ANSWERS[:1]) == ["absent"]  # in another event loop


def test_model_graded_qa():
    def grade(body):
        said = user_text(body)
        assert "Which number?" in said or "It is" in said
        return f"Thinking.\nGRADE: {'C' if 'is 2' in said else 'I'}", None

    with serving(JudgeServer(grade)) as server:
        judge = ScorerJudge("model_graded_qa", grader=Grader("g", server.url, "k"), target=three)
        assert outcomes(judge) == ["absent", "absent", "shown", "absent", "absent", "absent"]
        assert "3" in user_text(server.bodies[0])


def test_a_grader_that_refuses(home):
    with serving(JudgeServer(replies, key="secret")) as server:
        judge = ScorerJudge(f"{home}@asks", grader=Grader("grader", server.url, "wrong"))
        with pytest.raises(JudgeError, match=r"the scorer failed: .*Incorrect API key"):
            outcomes(judge)
