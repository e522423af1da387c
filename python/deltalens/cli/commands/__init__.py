"""One module per command, each with ``configure(commands)`` and ``run(args)``."""

from deltalens.cli.commands import ablate, attribute, baseline, demo, export, lens, plan

COMMANDS = (demo, baseline, attribute, ablate, export, lens, plan)
