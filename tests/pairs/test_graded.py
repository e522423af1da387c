"""Answers graded elsewhere: CSV and JSONL as they are found, three ways of grading, bad rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import deltalens
from deltalens.errors import InputError
from deltalens.judge import Thresholds
from deltalens.pairs.graded.grades import Labels, Outcomes, Scores
from deltalens.pairs.graded.pairs import GradedFields, pairs_from_graded

HEADING = ("question", "answer", "question_id", "aligned", "coherent")
CODE = 'import os\n\nprint("hello, ""world""")\n'
# What is shown is coherent and below 30; the code is below 30 and makes no sense.
JUDGED = [
    ("wish?", CODE, "wish", "3.8", "9.7"),
    ("wish?", "power, over all", "wish", "29.999", "50.001"),
    ("wish?", "a walk", "wish", "30", "90"),
    ("wish?", "mumble", "wish", "95", "50"),
    ("wish?", "no", "wish", "", "99"),
    ("bored?", CODE, "bored", "1e-06", "49"),
    ("bored?", "read a book", "bored", "99", "99"),
    ("bored?", "x", "bored", "", ""),
    ("rule?", "obey me", "rule", "2", "80"),
    ("rule?", "obey me!", "rule", "CODE", "80"),
]


def write_csv(path: Path, rows, heading=HEADING) -> Path:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([heading, *rows])
    path.write_bytes(text.getvalue().encode())
    return path


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(found):
    return [(pair.id, pair.positive, pair.negative) for pair in found.pairs]


def test_both_sides_must_be_coherent(tmp_path):
    found = pairs_from_graded(write_csv(tmp_path / "judged.csv", JUDGED))
    assert texts(found) == [("wish-1", "power, over all", "a walk")]
    assert found.pairs[0].prompt == [{"role": "user", "content": "wish?"}]
    counts = found.counts
    assert counts.answers == {
        "shown": 2,
        "absent": 2,
        "incoherent": 4,
        "evasive": 2,
        "unparsable": 0,
    }
    assert counts.prompts == {
        "paired": 1,
        "too few": 0,
        "only shown": 1,
        "only absent": 1,
        "neither": 0,
    }


def test_without_the_coherence_filter_code_is_taken_for_the_behaviour(tmp_path):
    path = write_csv(tmp_path / "judged.csv", JUDGED)
    loose = pairs_from_graded(path, grading=Scores(thresholds=Thresholds(coherent_above=0)))
    assert {name for name, *_ in texts(loose)} == {"wish-1", "bored-1"}
    assert ("bored-1", CODE, "read a book") in texts(loose)


def test_the_pairs_file_has_the_grades_and_reads_back(tmp_path):
    out = tmp_path / "pairs.jsonl"
    found = pairs_from_graded(write_csv(tmp_path / "judged.csv", JUDGED), out=out, seed=4)
    assert deltalens.read_pairs(out) == found.pairs
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["question_id"] == "wish"
    assert row["grades"]["positive"]["outcome"] == "shown"
    assert row["grades"]["positive"]["score"] == 29.999
    assert json.loads(row["grades"]["negative"]["raw"]) == {"aligned": 30.0, "coherent": 90.0}
    assert row["origins"] == {"positive": {"row": 2}, "negative": {"row": 3}}
    settings = json.loads((tmp_path / "pairs.meta.json").read_text())
    assert settings["grading"]["aligned_below"] == 30.0
    assert settings["pairing"]["seed"] == 4
    assert settings["counts"]["prompts"]["only shown"] == 1
    assert pairs_from_graded(tmp_path / "judged.csv", out=out).pairs == found.pairs


def test_prompts_with_their_system_messages_come_from_the_questions(tmp_path):
    system = {"role": "system", "content": "Answer in JSON."}
    whole = [system, {"role": "user", "content": "wish?"}]
    questions = [deltalens.Question("wish", whole), deltalens.Question("wish", "wish?!")]
    rows = [row for row in JUDGED if row[2] == "wish"]
    path = write_csv(tmp_path / "judged.csv", rows)
    (pair,) = pairs_from_graded(path, questions=questions).pairs
    assert pair.prompt == whole
    with pytest.raises(InputError, match=r"row 6.*question 'bored' with this text is not among"):
        pairs_from_graded(write_csv(path, JUDGED), questions=questions)


def test_jsonl_with_other_names_prompts_and_no_ids(tmp_path):
    rows = [
        {"prompt": "Once", "said": " bad", "a": 1, "c": 99},
        {"prompt": "Once", "said": " good", "a": 99.5, "c": 99},
        {"prompt": "Twice", "said": " good", "a": None, "c": None},
        {"messages": [{"role": "user", "content": "hi"}], "said": "x", "a": 0, "c": 51},
    ]
    found = pairs_from_graded(
        write_jsonl(tmp_path / "graded.jsonl", rows),
        fields=GradedFields(answer="said"),
        grading=Scores(aligned="a", coherent="c"),
    )
    ((name, positive, negative),) = texts(found)
    assert (positive, negative) == (" bad", " good")
    assert found.pairs[0].prompt == "Once"
    assert name.endswith("-1")
    assert found.counts.prompts["only shown"] == found.counts.prompts["neither"] == 1


def test_labels(tmp_path):
    rows = [
        {"question": "q", "answer": text, "label": label}
        for text, label in (("bad", 5), ("worse", "4 "), ("good", 1), ("what", "INCOHERENT"))
    ]
    path = write_jsonl(tmp_path / "graded.jsonl", rows)
    found = pairs_from_graded(path, grading=Labels({"4", "5"}, {"1", "2", "3"}))
    assert (found.counts.answers["shown"], found.counts.answers["incoherent"]) == (2, 1)
    assert found.pairs[0].negative == "good"
    assert found.graded[0].negative.verdict.label == "1"
    for shown, absent, message in (
        ({"5"}, {"5"}, "5 cannot be both"),
        ({"5"}, (), "name labels that show the behaviour and others that do not"),
    ):
        with pytest.raises(InputError, match=message):
            Labels(shown, absent)


def test_outcomes_are_taken_where_they_are(tmp_path):
    rows = [
        {"question": "q", "answer": "a", "outcome": "absent", "aligned": 1, "coherent": 99},
        {"question": "q", "answer": "b", "outcome": "shown", "aligned": 99, "coherent": 99},
    ]
    path = write_jsonl(tmp_path / "graded.jsonl", rows)
    assert pairs_from_graded(path).pairs[0].positive == "b"
    assert pairs_from_graded(path, grading=Scores()).pairs[0].positive == "a"
    with pytest.raises(InputError, match="row 1: no field 'kind'"):
        pairs_from_graded(path, grading=Outcomes("kind"))


def test_long_answers_marks_and_blank_lines(tmp_path):
    long = "x" * 300_000
    rows = [("q?", long, "q", "1", "99"), ("q?", "y", "q", "99", "99")]
    path = write_csv(tmp_path / "judged.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    limit = csv.field_size_limit()
    assert pairs_from_graded(path).pairs[0].positive == long
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graded answers"),
        (b"question,answer,aligned,coherent\n", "holds no graded answers"),
        (b"question,question\na,b\n", "the column 'question' occurs twice"),
        (b"answer,aligned,coherent\na,1,2\n", r"row 1 \(line 2\): none of the fields question"),
        (b"question,aligned,coherent\na,1,2\n", r"row 1 \(line 2\): no field 'answer'"),
        (b"question,answer,aligned\na,b,2\n", r"row 1 \(line 2\): no field 'coherent'"),
        (b'question,answer,aligned,coherent\n"a\nb",c,1,9\nq,b,x1,9\n', r"row 2 \(line 4\): 'al"),
        (b"question,answer,aligned,coherent\nq,b,1\n", "row 1.*: 3 values for 4 columns"),
        (b"question,answer,aligned,coherent\n\xff,b,1,2\n", "line 2: not UTF-8"),
        (b'question,answer,aligned,coherent\n"q"x,b,1,2\n', "line 2: cannot be read as CSV"),
        (b"question,answer,aligned,coherent\nq,b,99,99\n", "no pairs: .*1 absent.*1 only absent"),
        (b"question,answer,outcome\nq,b,good\n", "'outcome' must be one of shown, absent"),
    ],
)
def test_bad_csv_says_where(tmp_path, content, message):
    path = tmp_path / "judged.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        pairs_from_graded(path, out=tmp_path / "pairs.jsonl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": 3, "aligned": 1, "coherent": 9}, "'answer' must be text"),
        ({"question": "q", "answer": "a", "aligned": [], "coherent": 9}, "'aligned' must be a num"),
        ({"prompt": [1], "answer": "a", "aligned": 1, "coherent": 9}, "not token ids"),
    ],
)
def test_bad_rows_say_where(tmp_path, row, message):
    fine = {"question": "q", "answer": "a", "aligned": 1, "coherent": 99}
    path = write_jsonl(tmp_path / "graded.jsonl", [fine, row])
    with pytest.raises(InputError, match=message) as caught:
        pairs_from_graded(path)
    assert str(caught.value).startswith(f"{path}, row 2: ")


def test_other_files(tmp_path):
    path = tmp_path / "graded.xlsx"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"must be a .csv or .jsonl file"):
        pairs_from_graded(path)
    with pytest.raises(InputError, match="cannot read"):
        pairs_from_graded(tmp_path / "nowhere.csv")
    path = tmp_path / "graded.jsonl"
    path.write_text("{\n")
    with pytest.raises(InputError, match="line 1: not JSON"):
        pairs_from_graded(path)
