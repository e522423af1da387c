from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from deltalens.errors import LONGEST_QUOTE, InputError, quoted
from deltalens.pairs.questions_yaml import yaml_questions
from deltalens.storage.json_text import parse_json, read_json
from deltalens.storage.yaml_text import compose_yaml, yaml_value


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"a": ' * 5000, "[" * 70 + "]" * 70, "9" * 5000, "nul", "\ud800"],
)
def test_what_is_no_json_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^not JSON") as error:
        parse_json(text)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_other_json_is_what_python_reads() -> None:
    text = json.dumps({"a": [[1, 2.5, None, True, "é\ud800"]] * 50, "b": {"c": {}}, "n": 10**300})
    assert parse_json(text) == json.loads(text)
    assert parse_json(text.encode("utf-8", "surrogatepass")) == json.loads(text)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"a\.json: not UTF-8 \(at byte 7\)"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"cannot read .*b\.json"):
        read_json(tmp_path / "b.json")


def nested_aliases(levels: int) -> bytes:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "content",
    [
        nested_aliases(9),
        b"&a [*a]",
        b"a: &a {b: *a}",
        b"- &a {k: 1}\n- &b {<<: [*a, *a]}\n"
        + b"\n".join(b"- &%c {<<: [*%c, *%c]}" % (n, n - 1, n - 1) for n in range(99, 123)),
    ],
)
def test_aliases_within_aliases_take_no_time(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_bytes(content)
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        yaml_questions(tmp_path / "q.yaml")
    assert time.monotonic() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 5000,
        b"!!python/object/apply:os.system [echo]",
        b"!!timestamp x",
        b"!!float ''",
        b"!!int ''",
        b"? [a]\n: b",
        b"2001-99-99",
        b"\xff\xfe\xfd",
        b"a: \x00",
        b"!!binary \xc3\xa9",
        b"9" * 5000,
    ],
)
def test_what_is_no_yaml_is_one_line(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^not YAML: ") as error:
        yaml_value(compose_yaml(content))
    assert len(str(error.value)) < 400


def test_quotes_are_short() -> None:
    shared: object = ["x" * 1000] * 10
    for _ in range(50):
        shared = [shared] * 10
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    for value in (shared, deep, {"a": shared}, "y" * 10**6, 10**5000, b"z" * 10**6, float("nan")):
        assert len(quoted(value)) <= LONGEST_QUOTE
    assert quoted("short") == "'short'"
    assert quoted({"a": [1, None]}) == "{'a': [1, None]}"


def test_messages_are_one_short_line() -> None:
    error = InputError("a\nb" + "x" * 10**6)
    assert len(str(error)) <= 2000
    assert "\n" not in str(error)
