"""``deltalens`` and ``python -m deltalens``, as ``torchrun -m deltalens`` starts it."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from deltalens.visible import visible_lines

INTERRUPTED = 130


def start() -> int:
    """Run the command line; returns the process's exit code.

    Importing takes seconds, in which Ctrl-C is one line, too; whatever a traceback quotes is shown,
    not acted on.
    """
    sys.excepthook = _show
    try:
        from deltalens.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("deltalens: interrupted", file=sys.stderr)
        return INTERRUPTED


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    lines = "".join(traceback.format_exception(kind, error, trace))
    print(visible_lines(lines), end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(start())
