"""A run directory while it is being made: refused, continued, or already complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, Unfinished
from deltalens.lm import Site
from deltalens.lm.points.names import saved_name
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.atomic import remove_directory, write_text
from deltalens.storage.json_text import read_json
from deltalens.storage.leftovers import foreign, remove_leftovers
from deltalens.storage.scratch import scratch_directory
from deltalens.study.attribution import METADATA_FILE, read_metadata

WORK_DIRECTORY = ".rows"
SETTINGS_FILE = "settings.json"

Settings = Mapping[str, Any]

BEFORE: Settings = {
    "score": "direction",
    "chat_template_kwargs": {},
    "target": "loss",
    "target_code": None,
    "prefix_tokens": 0,
    "align": None,
}
"""Options of runs made before these were choices."""


def site_directory(directory: Path, site: Site) -> Path:
    """Where below ``directory`` the run of one of several sites lies: ``site-12``, or
    ``site-12-mlp_out`` where that is no block's output."""
    kind = site.kind.removeprefix("hook_")
    return directory / (f"site-{site.layer}" + ("" if kind == "resid_post" else f"-{kind}"))


def check_no_run(directory: Path) -> None:
    """Raise :class:`InputError` where ``directory``, for runs of several sites, is a run itself."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; choose another run directory")
    if (directory / METADATA_FILE).exists() or (directory / WORK_DIRECTORY).exists():
        raise InputError(
            f"{directory} holds the run of a single site; choose another directory for several"
        )


def is_complete(directory: Path, settings: Settings) -> bool:
    """Whether ``directory`` already holds this very run.

    Raises :class:`InputError` when it holds anything but this run, complete or not.
    """
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; choose another run directory")
    if (directory / METADATA_FILE).exists():
        _check_same(directory, read_metadata(directory), settings)
        return True
    started = directory / WORK_DIRECTORY / SETTINGS_FILE
    if started.exists():
        _check_same(directory, read_json(started), settings)
    elif foreign(directory, WORK_DIRECTORY):
        raise InputError(
            f"{directory} holds files but no deltalens run; choose another run directory"
        )
    return False


@contextmanager
def work_directory(directory: Path | None, settings: Settings, ranks: Ranks) -> Iterator[Path]:
    """Where rows are kept until the run is complete, inside ``directory`` or a temporary one.

    Afterwards it is removed, except when something interrupted the run that the same call may
    not meet again: then finished shards stay for it to continue from. Where others work in it too,
    only the first removes it, and only when all is done.
    """
    if directory is None:
        if ranks != ALONE:
            raise InputError("several processes meet in a run directory; give one")
        with scratch_directory() as temporary:
            yield temporary
        return
    work = directory / WORK_DIRECTORY
    try:
        remove_leftovers(work)
        ranks.from_first(lambda: _note(work, settings))
        yield work
    except BaseException as error:
        useful = isinstance(error, Unfinished) or not isinstance(error, InputError)
        if ranks == ALONE and not (useful and any(work.glob("*.safetensors"))):
            discard(directory)
        raise
    if ranks.first:
        discard(directory)


def _note(work: Path, settings: Settings) -> None:
    """Write the settings, before any rows; rows without settings were being removed."""
    if not (work / SETTINGS_FILE).exists():
        for shard in work.glob("*.safetensors"):
            shard.unlink()
    write_text(work / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")


@contextmanager
def own_room(work: Path, ranks: Ranks) -> Iterator[Path]:
    """Where in ``work`` this process may put files that the others do not see."""
    if ranks.size == 1:
        yield work
        return
    room = work / f"rank-{ranks.rank}"
    room.mkdir(exist_ok=True)  # of a run that was cut
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def discard(directory: Path) -> None:
    """Remove the rows that were kept in ``directory``, and it too where there is nothing else."""
    remove_directory(directory / WORK_DIRECTORY)
    if directory.exists() and not any(directory.iterdir()):
        directory.rmdir()


def differing(there: Settings, here: Settings) -> str:
    """The options and fingerprints in which two settings differ, with both values; or nothing."""
    found, wanted = (_as_now(settings) for settings in (there, here))
    return ", ".join(
        f"{name} ({_short(found.get(name))} there, {_short(wanted.get(name))} here)"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    )


def _as_now(settings: Settings) -> Settings:
    """As this version writes them: earlier ones left out what had no choice, and called a site by
    its module path."""
    found = {**BEFORE, **settings["options"], **settings["fingerprints"]}
    return {**found, "site": saved_name(found["site"])}


def _check_same(directory: Path, there: Settings, here: Settings) -> None:
    differences = differing(there, here)
    if differences:
        raise InputError(
            f"{directory} holds a run with other settings: {differences}; "
            "choose another run directory or delete it"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
