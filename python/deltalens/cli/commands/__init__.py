"""One module per command, each with ``configure(commands)`` and ``run(args)``."""

from deltalens.cli.commands import (
    ablate,
    attribute,
    baseline,
    check_sae,
    compare,
    delta_activation,
    demo,
    examples,
    export,
    interpret,
    lens,
    merge,
    pairs,
    plan,
    report,
    steer,
)

COMMANDS = (
    demo,
    pairs,
    baseline,
    attribute,
    ablate,
    delta_activation,
    steer,
    compare,
    examples,
    interpret,
    report,
    export,
    lens,
    plan,
    check_sae,
    merge,
)
