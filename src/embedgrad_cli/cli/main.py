"""The command `embedgrad`: finds the subcommand, checks the input, and hands over to Hydra.

`embedgrad --help` must answer at once and wrong input before torch is loaded, so everything heavy is imported late.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from embedgrad_cli import __version__
from embedgrad_cli.cli.help import OVERVIEW, command_help
from embedgrad_cli.cli.hydra_job import run_hydra
from embedgrad_cli.cli.names import COMMANDS, INTERRUPTED, MODES, PUSH, SEARCH
from embedgrad_cli.config.arm_spec import quote_texts
from embedgrad_cli.errors import ConfigError, EmbedgradError

if TYPE_CHECKING:
    from argparse import Namespace


COMPLETION_FLAGS = ("-sc", "--shell-completion")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except EmbedgradError as error:
        print(f"embedgrad: {_message(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"embedgrad: {str(interrupt) or 'interrupted.'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `embedgrad optimize --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0
    if "--version" in argv:
        print(f"embedgrad {__version__}")
        return 0
    if any(flag in argv for flag in COMPLETION_FLAGS):
        from embedgrad_cli.cli.completion import complete

        return complete([word for word in argv if word not in (*COMMANDS, *COMPLETION_FLAGS)])
    if argv[0] not in COMMANDS:
        raise ConfigError([_unknown_command(argv[0])])
    if argv[0] == "inspect":  # this and `compare` have flags only, and no use for Hydra
        from embedgrad_cli.commands.inspect import main as inspect

        return inspect(argv[1:])
    if argv[0] == "compare":
        from embedgrad_cli.commands.compare import main as compare

        return compare(argv[1:])
    if argv[0] == "tasks":  # reads configs, but is no job
        from embedgrad_cli.commands.tasks import main as tasks

        return tasks(argv[1:])
    return _run(argv[0], argv[1:])


def _run(command: str, argv: list[str]) -> int:
    if command == "evaluate":
        if set(MODES) <= set(argv):
            raise ConfigError(["--predict-only only answers and --regrade only grades: give one of them, or neither."])
        argv = [quote_texts(MODES.get(word, word)) for word in argv]
    if command == "export":
        argv = _export_settings(argv)
    args = _parse(argv)
    if args.help:
        print(command_help(command, args.config_dir, args.overrides), end="")
        return 0

    from embedgrad_cli.config.compose import Request, problems_of

    shows = [flag for flag in ("cfg", "info") if getattr(args, flag) is not None]
    shows_only = bool(shows) or args.hydra_help
    is_multirun = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
    request = Request(command, args.overrides, args.config_dir, args.config_name, is_multirun)
    problems = problems_of(request, values=not shows_only)
    if args.multirun and shows:  # Hydra would end in a traceback
        problems.append(f"--{shows[0]} shows one job: leave --multirun out and give each setting one value.")
    if problems:
        raise ConfigError(problems)
    # Hydra's parser wants all flags before all overrides.
    flags = [word for word in argv if word not in args.overrides]
    run_hydra(command, [*flags, *args.overrides])
    return 0


def _export_settings(argv: list[str]) -> list[str]:
    """`--push OWNER/NAME`, `search=true` and `export.weights=copy` as the settings they are: `push=`, `search.budget=`,
    `weights=`.

    Raises:
        ConfigError: `--push` names no repository.
    """
    settings = [word.removeprefix("export.") for word in argv]
    settings = [SEARCH.get(word, word) for word in settings]
    while PUSH in settings:
        at = settings.index(PUSH)
        repository = "".join(settings[at + 1 : at + 2])
        if not repository or "=" in repository or repository.startswith("-"):
            raise ConfigError([f"{PUSH} needs the repository to upload to: {PUSH} OWNER/NAME."])
        settings[at : at + 2] = [f"push={repository}"]
    return [word.removeprefix("--") if word.startswith(f"{PUSH}=") else word for word in settings]


def _parse(argv: list[str]) -> Namespace:
    """Hydra's flags and overrides, in any order.

    Raises:
        ConfigError: a flag is unknown or lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    def fail(message: str) -> Any:
        raise ConfigError([f"{message}. Flags are listed by `embedgrad COMMAND --help`; settings are key=value."])

    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = fail  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(argv)
    if args.experimental_rerun is not None:
        fail("--experimental-rerun unpickles a file, which embedgrad never does")
    if args.config_path is not None:
        fail("--config-path would hide embedgrad's own configs; add yours with --config-dir DIR")
    if args.resolve and args.cfg is None:
        fail("--resolve goes with --cfg only")
    return args


def _unknown_command(name: str) -> str:
    from embedgrad_cli.config.spelling import nearest

    hint = nearest(name, COMMANDS)
    if "=" in name:
        return f"the command is missing before {name!r}. Commands are {', '.join(COMMANDS)}."
    return (
        f"there is no command {name!r}.{f' Did you mean {hint}?' if hint else ''} Commands are {', '.join(COMMANDS)}."
    )


def _message(error: EmbedgradError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return f"{len(error.problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in error.problems)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
