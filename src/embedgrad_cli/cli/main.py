"""The command `embedgrad`: finds the subcommand, hands it the other words, and says what went wrong.

`embedgrad --help` must answer at once and wrong input before torch is loaded, so what is heavy is imported late.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from embedgrad_cli import __version__
from embedgrad_cli.cli.help import OVERVIEW
from embedgrad_cli.cli.library_failure import explanation
from embedgrad_cli.cli.names import COMMANDS, INTERRUPTED, JOBS
from embedgrad_cli.commands import flag_command
from embedgrad_cli.config.spelling import nearest
from embedgrad_cli.errors import ConfigError, EmbedgradError, EndedElsewhere
from embedgrad_cli.guards.visible_text import shortened, visible, write_escaped
from embedgrad_cli.parallel.environment import let_first_speak, speaks
from embedgrad_cli.storage.interrupts import Interruption, signals_interrupt

COMPLETION_FLAGS = ("-sc", "--shell-completion")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    write_escaped(sys.stdout)
    with signals_interrupt():
        try:
            return _exit_code(sys.argv[1:] if argv is None else argv)
        except KeyboardInterrupt as interrupt:  # also while an error is told
            return _interrupted(str(interrupt))


def _exit_code(argv: list[str]) -> int:
    try:
        return _dispatch(argv)
    except EndedElsewhere as error:
        return error.exit_code
    except EmbedgradError as error:
        if Interruption.has_come and error.exit_code != INTERRUPTED:
            return _interrupted()
        if isinstance(error, ConfigError):
            let_first_speak()
        _say(_message(error))
        return error.exit_code
    except BrokenPipeError:  # `embedgrad optimize --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:  # argparse has printed a help
        return int(end.code or 0)
    except Exception as error:
        if Interruption.has_come:
            return _interrupted()
        if (explained := explanation(error)) is None:
            raise
        _say(str(explained))
        return explained.exit_code


def _interrupted(why: str = "") -> int:
    with suppress(KeyboardInterrupt):  # a second signal
        if speaks():
            _say(why or "interrupted.")
    return INTERRUPTED


def _say(message: str) -> None:
    with suppress(OSError):  # a terminal that was closed; the exit code tells
        print(visible(shortened(f"embedgrad: {message}")), file=sys.stderr, flush=True)


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["help"]:  # `embedgrad help optimize`
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW, end="")
        return 0
    if "--version" in argv:
        print(f"embedgrad {__version__}")
        return 0
    if any(flag in argv for flag in COMPLETION_FLAGS):
        from embedgrad_cli.cli.completion import complete

        return complete([word for word in argv if word not in (*COMMANDS, *COMPLETION_FLAGS)])
    command, *words = argv
    if command not in COMMANDS:
        raise ConfigError([_unknown_command(command)])
    if command not in JOBS:
        return flag_command(command).main(words)
    from embedgrad_cli.cli.job_line import run_line

    return run_line(command, words)


def _unknown_command(name: str) -> str:
    commands = f"Commands are {', '.join(COMMANDS)}."
    if "=" in name:
        return f"the command is missing before {name!r}. {commands}"
    close = nearest(name, COMMANDS)
    return f"there is no command {name!r}.{f' Did you mean {close}?' if close else ''} {commands}"


def _message(error: EmbedgradError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return f"{len(error.problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in error.problems)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
