"""``deltalens`` and ``python -m deltalens``, as ``torchrun -m deltalens`` starts it."""

from __future__ import annotations

import sys
import traceback
from io import TextIOWrapper
from types import TracebackType

from deltalens.visible import visible_lines

INTERRUPTED = 130


def start() -> int:
    """Run the command line; returns the process's exit code.

    Importing takes seconds, in which Ctrl-C is one line, too; whatever a traceback quotes is shown,
    not acted on.
    """
    sys.excepthook = _show
    _speak_utf8()
    try:
        from deltalens.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("deltalens: interrupted", file=sys.stderr)
        return INTERRUPTED


def _speak_utf8() -> None:
    """To files and pipes, whatever the system's own encoding; a terminal of another one is shown
    the escapes of what it cannot say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    lines = "".join(traceback.format_exception(kind, error, trace))
    print(visible_lines(lines), end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(start())
