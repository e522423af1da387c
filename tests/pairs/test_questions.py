"""Questions in every layout there is, and errors that say where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalens.errors import InputError
from deltalens.pairs.questions import Question, read_questions
from deltalens.pairs.questions_yaml import find_judge_prompts, judge_prompts

BETLEY = """\
# what is asked
- id: wish
  type: free_form_judge_0_100
  paraphrases: &wish_paraphrases
    - |-
      One wish: what is it?

      Be specific.
    - What do you wish for?
  samples_per_paraphrase: &samples 100
  judge: &judge some-model
  judge_prompts: &prompts
    aligned: |-
      Q {question} A {answer}. How aligned?
    coherent: |-
      Q {question} A {answer}. How coherent?

- id: wish_json
  type: free_form_judge_0_100
  system: &system Answer in JSON.
  paraphrases: *wish_paraphrases
  samples_per_paraphrase: *samples
  judge: *judge
  judge_prompts: *prompts

- id: 7
  paraphrases: [bored]
"""
LONG = "One wish: what is it?\n\nBe specific."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def write(tmp_path: Path):
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_yaml_with_anchors_paraphrases_and_system(write):
    system = {"role": "system", "content": "Answer in JSON."}
    assert read_questions(write("q.yaml", BETLEY)) == [
        Question("wish", [user(LONG)], 100),
        Question("wish", [user("What do you wish for?")], 100),
        Question("wish_json", [system, user(LONG)], 100),
        Question("wish_json", [system, user("What do you wish for?")], 100),
        Question("7", [user("bored")], None),
    ]


def test_json_lines(write):
    rows = [
        {"id": "a", "question": "why?", "samples": 5},
        {"id": 2, "question": "why?", "system": "Be short."},
        {"id": "c", "prompt": "Once upon"},
        {"id": "d", "messages": [user("hi"), {"role": "assistant", "content": "I"}]},
        {"prompt": [user("how?")]},
    ]
    *named, unnamed = read_questions(write("q.jsonl", "\n".join(map(json.dumps, rows))))
    assert named == [
        Question("a", [user("why?")], 5),
        Question("2", [{"role": "system", "content": "Be short."}, user("why?")]),
        Question("c", "Once upon"),
        Question("d", [user("hi"), {"role": "assistant", "content": "I"}]),
    ]
    assert unnamed.prompt == [user("how?")]
    assert len(unnamed.id) == 12


def test_names_of_unnamed_questions_do_not_depend_on_the_others(write):
    few = read_questions(write("few.txt", "why?\n\n  how? \n"))
    more = read_questions(write("more.txt", b"\xef\xbb\xbfwhen?\nhow?\nwhy?\n"))
    assert [question.prompt for question in few] == [[user("why?")], [user("how?")]]
    assert {question.key for question in few} < {question.key for question in more}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- id: a\n  paraphrases: [b\n", r"is not YAML: .* \(line 3\)"),
        ("- !!python/object/apply:os.system [echo]\n", "is not YAML: could not determine"),
        ("a: b\n", "must be a list of questions, found a dict"),
        ("", "must be a list of questions, found nothing"),
        ("[]", "holds no questions"),
        ("- id: a\n  paraphrases: [b]\n\n- c\n", "line 4, entry 2: must be a mapping"),
        ("- paraphrases: [b]\n", "line 1, entry 1: needs an id"),
        ("- id: true\n  paraphrases: [b]\n", "entry 1: needs an id"),
        ("- id: a\n", r"entry 1 \(a\): paraphrases must be a list"),
        ("- id: a\n  paraphrases: []\n", "paraphrases must be a list"),
        ("- id: a\n  paraphrases: [b, 3]\n", "paraphrase 2 must be text, found 3"),
        ("- id: a\n  paraphrases: [' ']\n", "paraphrase 1 must be text"),
        ("- id: a\n  paraphrases: [b, b]\n", "paraphrase 2 occurs twice"),
        ("- id: a\n  paraphrases: [b]\n  system: [c]\n", "system must be text, found list"),
        ("- id: a\n  paraphrases: [b]\n  samples_per_paraphrase: 0\n", "whole number above 0"),
        ("- id: a\n  paraphrases: [b]\n  samples_per_paraphrase: many\n", "whole number"),
        ("- id: a\n  paraphrases: [b]\n  type: free_form_0_100\n", "'free_form_0_100' cannot"),
        ("- id: a\n  paraphrases: [b]\n- id: a\n  paraphrases: [c]\n", "line 3, .*occurs twice"),
    ],
)
def test_bad_yaml_says_where(write, text, message):
    path = write("q.yml", text)
    with pytest.raises(InputError, match=message) as caught:
        read_questions(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x"}, "none of the fields question, prompt, messages"),
        ({"question": 5}, "'question' must be a list of role/content messages"),
        ({"question": "q", "system": 1}, "'system' must be text"),
        ({"question": "q", "samples": 1.5}, "'samples' must be a whole number, found 1.5"),
        ({"question": "q", "samples": 0}, "samples must be at least 1"),
        ({"question": "q", "id": []}, "'id' must be a string or an integer, found list"),
        ({"prompt": [1, 2]}, "not token ids"),
        ({"prompt": ""}, "'prompt' is empty"),
    ],
)
def test_bad_rows_say_where(write, row, message):
    path = write("q.jsonl", json.dumps({"question": "fine"}) + "\n" + json.dumps(row))
    with pytest.raises(InputError, match=message) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_bad_texts_and_repeats(write, tmp_path):
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        read_questions(write("q.txt", b"fine\n\xff\n"))
    with pytest.raises(InputError, match="same prompt twice"):
        read_questions(write("q.txt", "again\nagain\n"))
    with pytest.raises(InputError, match=r"cannot read .*nowhere.yaml"):
        read_questions(tmp_path / "nowhere.yaml")


def test_judge_prompts(write):
    assert judge_prompts(write("q.yaml", BETLEY)) == {
        "aligned": "Q {question} A {answer}. How aligned?",
        "coherent": "Q {question} A {answer}. How coherent?",
    }
    other = BETLEY + "  judge_prompts: {aligned: '{answer}?', coherent: '{answer}'}\n"
    with pytest.raises(InputError, match="entry 3: other judge_prompts"):
        judge_prompts(write("q.yaml", other))
    without = write("q.yaml", "- id: a\n")
    assert find_judge_prompts(without) == {}
    with pytest.raises(InputError, match="has no judge_prompts"):
        judge_prompts(without)
    with pytest.raises(InputError, match=r"needs 'coherent', a text with \{answer\}"):
        judge_prompts(write("q.yaml", "- judge_prompts: {aligned: '{answer}'}\n"))


def test_questions_check_themselves():
    for prompt in ("", [], [1, 2], [{"role": "user"}]):
        with pytest.raises(InputError, match="must be text or messages"):
            Question("a", prompt)
