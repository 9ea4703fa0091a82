"""Shell completion. Hydra knows one command per program; here the subcommand comes first."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from embedgrad_cli.config import COMMANDS as CONFIGURED
from embedgrad_cli.errors import ConfigError

OWN_FLAGS = {
    "compare": ("--help", "--format", "--sort", "--mixed"),
    "inspect": ("--help", "--verify", "--format"),
}
FLAGS = ("--help", "--cfg", "--multirun", "--config-dir", "--config-name", "--info")


def complete(words: list[str]) -> int:
    """Install, uninstall or answer: `embedgrad -sc install=bash|fish|zsh`, `-sc query=SHELL` with COMP_LINE set.

    Raises:
        ConfigError: no action is named.
    """
    from embedgrad_cli.cli import COMMANDS, _run_hydra

    action = next((word for word in words if word.partition("=")[0] in ("install", "uninstall", "query")), None)
    if action is None:
        raise ConfigError(["-sc: say what to do: -sc install=bash, or uninstall=, or zsh or fish."])
    if not action.startswith("query="):
        _run_hydra(COMMANDS[0], ["-sc", action])
        return 0
    _, _, line = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    typed = line.split()
    last = "" if not typed or line.endswith(" ") else typed[-1]
    if len(typed) - bool(last) == 0:
        print(" ".join(command for command in COMMANDS if command.startswith(last)))
    elif last.startswith("-"):
        flags = OWN_FLAGS.get(typed[0], FLAGS)
        print(" ".join(flag for flag in flags if flag.startswith(last)))
    elif typed[0] in CONFIGURED:  # of the others' words the shell itself completes the files
        # Hydra completes the rest as if the subcommand were the program.
        os.environ["COMP_LINE"] = "embedgrad " + line.lstrip().removeprefix(typed[0]).lstrip()
        _run_hydra(typed[0], [*_config_dir(typed), "-sc", action])
    return 0


def _config_dir(typed: list[str]) -> list[str]:
    """The flag `--config-dir DIR` of the line, so that a user's own choices are completed too."""
    for flag, value in pairwise(typed):
        if flag in ("--config-dir", "-cd") and Path(value).is_dir():
            return [flag, value]
    return []
