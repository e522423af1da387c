"""A survey's directory: what it holds, what may be added to it, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.storage.atomic import remove_directory, write_text
from deltalens.storage.json_text import read_json
from deltalens.storage.leftovers import foreign, passing
from deltalens.study.run import BEFORE

SETTINGS_FILE = "settings.json"
SUMMARY_FILE = "survey.json"
PAGE_FILE = "survey.html"

_OWN = (SETTINGS_FILE, SUMMARY_FILE, PAGE_FILE)
_LONGEST = 100


@dataclass(frozen=True)
class Place:
    """A site and one SAE there: canonical names, where below a behaviour's directory its run lies,
    and fingerprints of SAE and baseline. sae: its name where the site has several, else None."""

    site: str
    sae: str | None
    directory: str
    fingerprints: Mapping[str, str]

    def words(self) -> str:
        """How it is called in messages."""
        return self.site if self.sae is None else f"{self.site} with {self.sae}"


@dataclass(frozen=True)
class Contents:
    """What a survey's directory is of; options and model are those of every study in it."""

    options: Mapping[str, Any]
    model: str
    behaviours: Sequence[str]
    places: Sequence[Place]

    def with_earlier(self, directory: Path) -> Contents:
        """These, and what ``directory`` already holds, which comes first.

        Raises :class:`InputError` where it holds anything but a survey of the same options and
        model, with the same SAEs and baselines where they are at the same place.
        """
        there = read_contents(directory)
        if there is None:
            return self
        self._check_same(directory, there)
        known = {(place.site, place.sae) for place in there.places}
        new = [place for place in self.places if (place.site, place.sae) not in known]
        return Contents(
            self.options,
            self.model,
            list(dict.fromkeys([*there.behaviours, *self.behaviours])),
            [*there.places, *new],
        )

    def _check_same(self, directory: Path, there: Contents) -> None:
        here = {**BEFORE, **self.options, "model": self.model}
        found = {**BEFORE, **there.options, "model": there.model}
        differing = sorted(name for name in {*here, *found} if here.get(name) != found.get(name))
        if differing:
            said = ", ".join(f"{n} ({found.get(n)} there, {here.get(n)} here)" for n in differing)
            raise InputError(
                f"{directory} holds a survey with other settings: {said}; choose another directory"
            )
        known = {(place.site, place.sae): place for place in there.places}
        for place in self.places:
            earlier = known.get((place.site, place.sae), place)
            if earlier.fingerprints != place.fingerprints:
                raise InputError(
                    f"{directory} holds a survey with another SAE or baseline at {place.words()}; "
                    "choose another directory"
                )

    def save(self, directory: Path) -> None:
        """Keep them in ``directory``, which is a survey's from then on."""
        text = json.dumps({"survey": asdict(self)}, indent=2, ensure_ascii=False)
        write_text(directory / SETTINGS_FILE, text + "\n")


def read_contents(directory: Path) -> Contents | None:
    """What a survey's directory is of; None where nothing is there yet.

    Raises :class:`InputError` for a directory of anything else.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; choose another directory for the survey")
    path = directory / SETTINGS_FILE
    if not path.exists():
        if directory.exists() and foreign(directory):
            raise InputError(
                f"{directory} holds files but no deltalens survey; choose another directory"
            )
        return None
    try:
        said = read_json(path)["survey"]
        places = [Place(**place) for place in said["places"]]
        return Contents(said["options"], said["model"], said["behaviours"], places)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} was not written by a survey; choose another directory") from error


def is_survey(directory: Path) -> bool:
    """Whether a survey was begun in ``directory``."""
    try:
        return read_contents(directory) is not None
    except InputError:
        return False


def forget(directory: Path) -> None:
    """Leave nothing of a survey in whose directory there is no other file."""
    files = [path for path in directory.rglob("*") if not (path.is_dir() or passing(path))]
    if files == [directory / SETTINGS_FILE]:
        remove_directory(directory)


def check_names(names: Iterable[str], what: str) -> None:
    """Raise :class:`InputError` for a name that no directory can have."""
    separators = {"/", "\0", os.sep, os.altsep or os.sep}
    for name in names:
        if not name.strip() or name.startswith(".") or separators & set(name):
            raise InputError(
                f"{name!r} cannot name a {what}: it names a directory, which has no slashes and no "
                "dot in front"
            )
        if name in _OWN or len(name.encode()) > _LONGEST:
            raise InputError(
                f"{name[:40]!r} cannot name a {what}: choose another name, of at most {_LONGEST} "
                "bytes"
            )
