"""One module per command, each with ``configure(commands)`` and ``run(args)``."""

from deltalens.cli.commands import ablate, attribute, baseline, demo, lens, plan

COMMANDS = (demo, baseline, attribute, ablate, lens, plan)
