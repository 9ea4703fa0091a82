"""The command line of optimize, evaluate and export: Hydra's flags and overrides, in any order, checked before torch
is loaded.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import NoReturn

from embedgrad_cli.cli.dry_run_flags import take_dry_run
from embedgrad_cli.cli.help import command_help
from embedgrad_cli.cli.hydra_job import run_hydra, run_once
from embedgrad_cli.cli.names import MODES, PUSH, QUIET, SEARCH
from embedgrad_cli.cli.sweep import run_sweep
from embedgrad_cli.config.arm_spec import quote_texts
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.guards.visible_text import visible


def run_line(command: str, words: list[str]) -> int:
    """Print the help, or check the command line and let Hydra run it. Returns: exit code 0.

    Raises:
        ConfigError: holds everything that is wrong with the command line.
    """
    words, dry_run = take_dry_run(command, _as_settings(command, words))
    args = _parse(words)
    if args.help:
        print(command_help(command, args.config_dir, args.overrides), end="")
        return 0
    from embedgrad_cli.config.compose import Request, check_line

    shows = [flag for flag in ("cfg", "info") if getattr(args, flag) is not None]
    is_multirun = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
    only_shows = bool(shows) or args.hydra_help
    request = Request(command, args.overrides, args.config_dir, args.config_name, is_multirun, dry_run)
    line = check_line(request, values=not only_shows)  # values may be missing where the config is only shown
    problems = line.problems
    if args.multirun and shows:  # Hydra would end in a traceback
        problems.append(f"--{shows[0]} shows one job: leave --multirun out and give each setting one value.")
    if problems:
        raise ConfigError(problems)
    for notice in line.notices:
        print(visible(f"embedgrad: {notice}"), file=sys.stderr)
    if only_shows:
        # Hydra's parser wants all flags before all overrides.
        flags = [word for word in words if word not in args.overrides]
        run_hydra(request, [*flags, *args.overrides])
    elif is_multirun:
        run_sweep(request, line)
    else:
        run_once(request, line)
    return 0


def _as_settings(command: str, words: list[str]) -> list[str]:
    """The flags and short words of a command as the settings that they stand for.

    Raises:
        ConfigError: flags contradict each other, or one lacks its value.
    """
    if command in ("optimize", "evaluate"):
        words = [QUIET.get(word, word) for word in words]
    if command == "evaluate":
        if set(MODES) <= set(words):
            raise ConfigError(["--predict-only only answers and --regrade only grades: give one of them, or neither."])
        return [quote_texts(MODES.get(word, word)) for word in words]
    return _export_settings(words) if command == "export" else words


def _export_settings(words: list[str]) -> list[str]:
    """`--push OWNER/NAME`, `search=true` and `export.weights=copy` as the settings they are: `push=`, `search.budget=`,
    `weights=`.
    """
    settings = [word.removeprefix("export.") for word in words]
    settings = [SEARCH.get(word, word) for word in settings]
    while PUSH in settings:
        at = settings.index(PUSH)
        repository = "".join(settings[at + 1 : at + 2])
        if not repository or "=" in repository or repository.startswith("-"):
            raise ConfigError([f"{PUSH} needs the repository to upload to: {PUSH} OWNER/NAME."])
        settings[at : at + 2] = [f"push={repository}"]
    return [word.removeprefix("--") if word.startswith(f"{PUSH}=") else word for word in settings]


def _parse(words: list[str]) -> Namespace:
    """Hydra's flags and overrides.

    Raises:
        ConfigError: a flag is unknown or lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    def fail(message: str) -> NoReturn:
        raise ConfigError([f"{message}. Flags are listed by `embedgrad COMMAND --help`; settings are key=value."])

    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = fail  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(words)
    if args.experimental_rerun is not None:
        fail("--experimental-rerun unpickles a file, which embedgrad never does")
    if args.config_path is not None:
        fail("--config-path would hide embedgrad's own configs; add yours with --config-dir DIR")
    if args.resolve and args.cfg is None:
        fail("--resolve goes with --cfg only")
    return args
