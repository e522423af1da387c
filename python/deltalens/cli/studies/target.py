"""The target of a run that another command goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deltalens.errors import InputError


def target_of_run(named: str | None, options: Mapping[str, Any], run: Path) -> str:
    """The target in a run's recorded ``options``, whose function, if it is one, was ``named`` now.

    What a directory says is never run by itself. Raises :class:`InputError` where nothing was
    named, or something else than the run was made with.
    """
    from deltalens.lm.targets.parse import parse_target

    recorded = options.get("target", "loss")
    code = options.get("target_code")
    if named is None:
        if code is not None:
            raise InputError(
                f"the target of {run} is {recorded}, code of your own, which is run only where you "
                f"name it; give --target PATH/{recorded}"
            )
        return str(recorded)
    found = parse_target(named, options["loss"])
    if (found.name, found.code) != (recorded, code):
        what = "another function" if found.name == recorded else f"{found.name}"
        raise InputError(
            f"{run} was made with the target {recorded}, and --target is {what}; leave it out, or "
            "name what the run was made with"
        )
    return named


def check_named(named: str | None, noted: str | None, out: Path) -> None:
    """Raise :class:`InputError` unless ``noted``, a target that was read beside ``out``, may be
    run: as it is no function, or was ``named`` now."""
    from deltalens.lm.targets.parse import is_function

    if noted is not None and is_function(noted) and named != noted:
        raise InputError(
            f"the jobs at {out} had the target {noted}, code of your own, which is run only where "
            f"you name it; give --target {noted}"
        )
