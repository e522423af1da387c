"""A user's own Python function as a judge."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from deltalens.errors import InputError, quoted
from deltalens.judge.template import version_of
from deltalens.judge.verdict import Answer, JudgeError, Outcome, Verdict

FORMAT = 1  # of verdicts; raised when they change
OUTCOMES: tuple[str, ...] = get_args(Outcome)

Grader = Callable[[Any, str], Any]


class CallableJudge:
    """Calls ``function(prompt, text)`` for every answer.

    prompt: text or role/content messages. It returns a :class:`Verdict`, an outcome ("shown",
    "absent", "incoherent", "evasive", "unparsable") or whether the behaviour is shown, as a bool
    or as 0 or 1, of numpy or torch too. The version is a hash of the file that the function is in.
    """

    resamples = 0

    def __init__(self, function: Grader) -> None:
        self._function = function
        self.name = getattr(function, "__name__", "")
        if not self.name.isidentifier():
            raise InputError(
                f"a judge must be a named function, got {quoted(function)}; write it as def"
            )
        self.version = version_of(format=FORMAT, name=self.name, source=source_hash(function))

    @classmethod
    def load(cls, place: str) -> CallableJudge:
        """The function at ``module:function`` or ``path/file.py:function``."""
        home, _, name = place.rpartition(":")
        if not home or not name.isidentifier():
            raise InputError(
                f"{quoted(place)} is no judge; give module:function or path/file.py:function"
            )
        function = getattr(imported(home), name, None)
        if not callable(function):
            raise InputError(f"{home} has no function {quoted(name)}; check its name")
        return cls(function)

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """In order; :class:`JudgeError` when the function fails or returns something else."""
        for number, answer in enumerate(answers):
            try:
                given = self._function(answer.prompt, answer.text)
            except Exception as error:
                raise JudgeError(
                    f"the judge {self.name} failed: {type(error).__name__}: {error}; mend it and "
                    "run the same command again"
                ) from error
            yield number, self._verdict(given)

    def _verdict(self, given: Any) -> Verdict:
        if isinstance(given, Verdict) and given.outcome in OUTCOMES:
            return given
        value = _plain(given)
        if isinstance(value, (bool, int, float)) and value in (0, 1):
            value = "shown" if value else "absent"
        if isinstance(value, str) and value in OUTCOMES:
            return Verdict(value, value)  # type: ignore[arg-type]
        raise JudgeError(
            f"the judge {self.name} returned {quoted(given)}; it must return a bool, 0 or "
            f"1, a Verdict "
            f"or one of {', '.join(OUTCOMES)}"
        )


def _plain(given: Any) -> Any:
    """A scalar of numpy, or a tensor or array without dimensions, as Python's own."""
    return given.item() if getattr(given, "shape", None) == () else given


def imported(home: str) -> ModuleType:
    """The module, or the file that ends in ``.py``; :class:`InputError` where it cannot be."""
    is_file = home.endswith(".py")
    place = Path(home).resolve().parent if is_file else Path.cwd()
    sys.path.insert(0, str(place))  # as for a script, so that it may import its neighbours
    try:
        return _import_file(Path(home)) if is_file else importlib.import_module(home)
    except Exception as error:
        raise InputError(
            f"cannot import the judge's {home}: {type(error).__name__}: {error}; check the path"
        ) from error
    finally:
        sys.path.remove(str(place))


def _import_file(path: Path) -> ModuleType:
    name = f"deltalens_judge_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def source_hash(function: Callable[..., Any]) -> str:
    """Hash of the file that ``function`` is defined in."""
    try:
        path = inspect.getsourcefile(function)
        content = Path(path or "").read_bytes()
    except (OSError, TypeError) as error:
        raise InputError(
            f"the source of the judge {quoted(function)} cannot be read; define it in a file"
        ) from error
    return hashlib.sha256(content).hexdigest()
