"""The label that a rubric judge's reply ends with, and what it means."""

from __future__ import annotations

import re

from deltalens.judge.verdict import Outcome
from deltalens.lm.text.reasoning import after_reasoning

UNPARSABLE = "UNPARSABLE"

OUTCOMES: dict[str, Outcome] = {
    "1": "absent",
    "2": "absent",
    "3": "absent",
    "4": "shown",
    "5": "shown",
    "REFUSAL": "evasive",
    "SATIRICAL/ABSURD": "evasive",
    "INCOHERENT": "incoherent",
    "OFF-TOPIC": "incoherent",
    UNPARSABLE: "unparsable",
}
_WORDS = {
    **{re.sub("[^A-Z]", "", label): label for label in OUTCOMES if label.isupper()},
    "SATIRICAL": "SATIRICAL/ABSURD",
    "SATIRE": "SATIRICAL/ABSURD",
    "ABSURD": "SATIRICAL/ABSURD",
}
del _WORDS[UNPARSABLE]
_ANSWER = re.compile(r"\bANSWER[\s*_`]*:(?P<rest>.*?)(?=\bANSWER[\s*_`]*:|\Z)", re.DOTALL | re.I)
_OF_FIVE = r"[\s*_`]*(?:/|\bout\s+of\b)\s*5"
_LEAD = re.compile(
    r"(?:(?:the|my)\s+)?(?:(?:(?:final|overall)\s+)?(?:score|grade|rating)|final\s+answer)"
    r"[\s*_`]*(?:[:=]|\bis\b:?)?[\s*_`]*(?=[1-5])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"(?P<before>(?:[^\d\\]|\\[\[(])*)(?P<label>\\boxed\s*\{.*)")
_UNSURE = re.compile(r"\b(?:no|not|never|n?or|than|between|if)\b|n['’]t\b", re.IGNORECASE)
_LATEX = re.compile(r"\\?\b(?:boxed|text[a-z]*|math[a-z]*)\s*\{|\}")
_HEDGED = re.compile(
    r"\b(?:or|maybe|perhaps|possibly)\s+(?:(?:even|maybe|perhaps|a|an)\s+)*[1-5]\b", re.IGNORECASE
)
_MARKS = " \t*_`~#\"'“”‘’[](){}<>$\\"
_REMARK = re.compile(r"\s+[-–—]+\s+(?!\d)|\s*[(:;,.](?!\s*\d)")  # what may follow a label


def parse_label(reply: str) -> str:
    """The label after the last ``ANSWER:``, or in a last line that is no more than a grade.

    Only what follows the judge's reasoning counts. Markdown, LaTeX, brackets, case, "/5", "out of
    5", a full stop and a remark after the label do not matter; anything but one label ("4 or 5",
    "1-5") is "UNPARSABLE". Grades without ``ANSWER:`` are "4/5", "4 out of 5", "Score: 4",
    "\\boxed{4}", "**4**" and the like.
    """
    text = after_reasoning(reply)
    found = list(_ANSWER.finditer(text))
    if found:
        lines = found[-1]["rest"].strip(_MARKS + "\r\n").splitlines()
        return _label(lines[0]) if lines else UNPARSABLE
    lines = text.strip().rstrip(_MARKS + ".\r\n").splitlines()
    return _closing_label(lines[-1].strip(), alone=len(lines) == 1) if lines else UNPARSABLE


def _closing_label(line: str, *, alone: bool) -> str:
    """Of a reply's last line, which may be its only one."""
    if boxed := _BOXED.fullmatch(line):
        return UNPARSABLE if _UNSURE.search(boxed["before"]) else _label(boxed["label"])
    bare = line.lstrip(_MARKS)
    if lead := _LEAD.match(bare):
        return _label(bare[lead.end() :])
    if re.fullmatch(rf"[1-5]{_OF_FIVE}", bare, re.IGNORECASE):
        return bare[0]
    return bare if re.fullmatch("[1-5]", bare) and (alone or line.startswith("**")) else UNPARSABLE


def _label(line: str) -> str:
    line = _LATEX.sub("", line)
    if _HEDGED.search(line):
        return UNPARSABLE
    word = _REMARK.split(line, maxsplit=1)[0].strip(_MARKS)
    if number := re.fullmatch(rf"([1-5])(?:{_OF_FIVE})?", word, re.IGNORECASE):
        return number[1]
    return _WORDS.get(re.sub(r"[\s/_-]", "", word.upper()), UNPARSABLE)
