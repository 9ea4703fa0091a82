"""Shell completion. Hydra knows one command per program; here the subcommand comes first."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from embedgrad_cli.cli.help import help_text
from embedgrad_cli.cli.hydra_job import run_hydra
from embedgrad_cli.cli.names import COMMANDS, JOBS
from embedgrad_cli.commands import flag_command
from embedgrad_cli.errors import ConfigError

LONG_FLAG = re.compile(r"^ *(--[\w-]+)", re.MULTILINE)


def complete(words: list[str]) -> int:
    """Install, uninstall or answer: `embedgrad -sc install=bash|fish|zsh`, `-sc query=SHELL` with COMP_LINE set.

    Raises:
        ConfigError: no action is named.
    """
    from embedgrad_cli.config.compose import Request

    action = next((word for word in words if word.partition("=")[0] in ("install", "uninstall", "query")), None)
    if action is None:
        raise ConfigError(["-sc: say what to do: -sc install=bash, or uninstall=, or zsh or fish."])
    if not action.startswith("query="):
        run_hydra(Request(JOBS[0], []), ["-sc", action])
        return 0
    _, _, line = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    typed = line.split()
    last = "" if not typed or line.endswith(" ") else typed[-1]
    if len(typed) - bool(last) == 0:
        print(" ".join(command for command in COMMANDS if command.startswith(last)))
    elif last.startswith("-"):
        print(" ".join(flag for flag in _flags(typed[0]) if flag.startswith(last)))
    elif typed[0] == "tasks":
        _complete_tasks(typed[1:], last, action)
    elif typed[0] in JOBS:  # of the others' words the shell itself completes the files
        # Hydra completes the rest as if the subcommand were the program.
        os.environ["COMP_LINE"] = "embedgrad " + line.lstrip().removeprefix(typed[0]).lstrip()
        run_hydra(Request(typed[0], []), [*_config_dir(typed), "-sc", action])
    return 0


def _flags(command: str) -> list[str]:
    """The long flags of a subcommand, from its help or from its parser."""
    if command not in COMMANDS:
        return []
    return LONG_FLAG.findall(help_text(command).flags) if command in JOBS else flag_command(command).parser().flags


def _complete_tasks(typed: list[str], last: str, action: str) -> None:
    """`show`, then a task's name, then what `optimize` takes."""
    from embedgrad_cli.config.compose import Composer, Request

    flag = _config_dir(typed)
    words = [word for word in typed[: len(typed) - bool(last)] if word not in ("--config-dir", "-cd", *flag)]
    if len(words) >= 2:
        os.environ["COMP_LINE"] = f"embedgrad {last}"
        run_hydra(Request("optimize", []), [*flag, "-sc", action])
        return
    names = Composer(flag[1] if flag else None).groups()["task"] if words else ["show"]
    print(" ".join(name for name in names if name.startswith(last)))


def _config_dir(typed: list[str]) -> list[str]:
    """The flag `--config-dir DIR` of the line, so that a user's own choices are completed too."""
    for flag, value in pairwise(typed):
        if flag in ("--config-dir", "-cd") and Path(value).is_dir():
            return [flag, value]
    return []
