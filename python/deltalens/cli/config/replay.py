"""A run made again, command by command."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.cli.config.inputs import check_inputs, hash_inputs
from deltalens.cli.config.parse import parse_config
from deltalens.cli.config.steps import Step, moved
from deltalens.errors import InputError, quoted

_ASKING_NOBODY = (None, "rubric", "scale", "grammar")


@dataclass(frozen=True)
class Replay:
    """The run, or file, at ``source`` that is made again at ``out``; both are absolute.

    trusted: code that the configurations name may be run, and endpoints asked. changed: what is
    read may be other than it was.
    """

    parser: argparse.ArgumentParser
    source: Path
    out: Path
    trusted: bool
    changed: bool

    def prepare(self, step: Step) -> argparse.Namespace:
        """The arguments of a step; the process's directory is the one that it was started in.

        Raises :class:`InputError` for a step that may not be run, or reads what has changed.
        """
        name = str(self.source if self.source.is_file() else self.source / step.words())
        config = moved(self.parser, step, self.out)
        args = parse_config(self.parser, name, config)
        if not self.trusted:
            _check_harmless(name, args)
        os.chdir(config.directory)
        args.parser, args.inputs = self.parser, hash_inputs(self.parser, args, config.directory)
        if not self.changed:
            check_inputs(name, config.inputs, args.inputs)
        if self.source.is_dir():
            args.kept_as = step.name
        return args

    def check_same(self, step: Step) -> None:
        """Raise :class:`InputError` where a run was made of other things than it was; only models
        and SAEs on the hub can have changed by then without a word."""
        from deltalens.study.attribution import METADATA_FILE, read_metadata

        first, second = (place / step.below for place in (self.source, self.out))
        if self.changed or not all((run / METADATA_FILE).exists() for run in (first, second)):
            return
        before, now = (read_metadata(run)["fingerprints"] for run in (first, second))
        other = [name for name in before if before[name] != now.get(name)]
        if other:
            raise InputError(
                f"{second} was made, but of another {' and '.join(other)} than {first}; delete it, "
                "or give --changed to go on"
            )


def _check_harmless(name: str, args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where the arguments name code, or somebody to send a key to."""
    from deltalens.lm.targets.parse import is_function

    judge, target = (getattr(args, option, None) for option in ("judge", "target"))
    asked: dict[str, Any] = {
        "code": next((text for text in (judge,) if text not in _ASKING_NOBODY), None)
        or (target if target is not None and is_function(target) else None),
        "an endpoint": getattr(args, "endpoint", None),
    }
    for what, value in asked.items():
        if value is not None:
            key = f", with the key in {args.judge_key_env}" if what == "an endpoint" else ""
            raise InputError(
                f"{name} names {what}, {quoted(value)}{key}, which is run or asked only where you "
                "say so; look at it, then give --trusted"
            )
