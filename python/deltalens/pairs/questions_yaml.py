"""The question files of Betley et al. (2025): a YAML list, with the judge's prompts inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.storage.jsonl import open_binary
from deltalens.storage.yaml_text import compose_yaml, yaml_value

SUFFIXES = (".yaml", ".yml")
TYPES = ("free_form", "free_form_judge", "free_form_judge_0_100")
JUDGE_PROMPTS = ("aligned", "coherent")


@dataclass(frozen=True)
class YamlQuestion:
    """One entry of a question file."""

    id: str
    paraphrases: list[str]
    system: str | None
    samples: int | None


def yaml_questions(path: Path) -> list[YamlQuestion]:
    """Every entry; :class:`InputError` with the file, line and entry for what cannot be used."""
    found: dict[str, YamlQuestion] = {}
    for place, entry in _entries(path):
        question = _question(entry, place)
        if question.id in found:
            raise InputError(
                f"{place}: the id {quoted(question.id)} occurs twice; ids must be unique"
            )
        found[question.id] = question
    return list(found.values())


def judge_prompts(path: str | Path) -> dict[str, str]:
    """The templates "aligned" and "coherent" of a question file, with ``{question}`` and
    ``{answer}`` to fill in; :class:`InputError` when it has none, or several different ones."""
    found = find_judge_prompts(path)
    if not found:
        raise InputError(f"{path} has no judge_prompts; choose a file with them or leave it out")
    return found


def find_judge_prompts(path: str | Path) -> dict[str, str]:
    """The same, but empty for a file that has none."""
    found: dict[str, str] = {}
    for place, entry in _entries(Path(path)):
        if entry.get("judge_prompts") is not None:
            templates = _templates(entry["judge_prompts"], place)
            if found and templates != found:
                raise InputError(
                    f"{place}: other judge_prompts than the entries before; split the file, "
                    "one judge grades with one wording"
                )
            found = templates
    return found


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of a list of mappings."""
    with open_binary(path) as stream:
        content = stream.read()
    try:
        node = compose_yaml(content)
        places = node.value if node is not None else []
        entries = yaml_value(node)
    except InputError as error:
        raise InputError(f"{path} is {error}") from None
    if not isinstance(entries, list):
        kind = "nothing" if entries is None else f"a {type(entries).__name__}"
        raise InputError(f"{path} must be a list of questions, found {kind}")
    for number, (entry, item) in enumerate(zip(entries, places, strict=True), start=1):
        place = f"{path}, line {item.start_mark.line + 1}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: must be a mapping with an id and paraphrases")
        yield place, entry


def _question(entry: dict[str, Any], place: str) -> YamlQuestion:
    name = entry.get("id")
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise InputError(f"{place}: needs an id")
    place = f"{place} ({name})"
    kind = entry.get("type", TYPES[0])
    if kind not in TYPES:
        raise InputError(
            f"{place}: answers of type {quoted(kind)} cannot make pairs; leave the entry out "
            f"(types: {', '.join(TYPES)})"
        )
    system = entry.get("system")
    if system is not None and not isinstance(system, str):
        raise InputError(f"{place}: system must be text, found {type(system).__name__}")
    return YamlQuestion(str(name), _paraphrases(entry, place), system, _samples(entry, place))


def _paraphrases(entry: dict[str, Any], place: str) -> list[str]:
    texts = entry.get("paraphrases")
    if not isinstance(texts, list) or not texts:
        raise InputError(f"{place}: paraphrases must be a list with at least one text")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{place}: paraphrase {number} must be text, found {quoted(text)}")
        if text in texts[: number - 1]:
            raise InputError(f"{place}: paraphrase {number} occurs twice")
    return texts


def _samples(entry: dict[str, Any], place: str) -> int | None:
    count = entry.get("samples_per_paraphrase")
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{place}: samples_per_paraphrase must be a whole number above 0")
    return count


def _templates(value: Any, place: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{place}: judge_prompts must be a mapping")
    for name in JUDGE_PROMPTS:
        if not isinstance(value.get(name), str) or "{answer}" not in value[name]:
            raise InputError(
                f"{place}: judge_prompts needs {quoted(name)}, a text with {{answer}} in it"
            )
    return {name: value[name] for name in JUDGE_PROMPTS}
