"""The command `embedgrad`: finds the subcommand, checks the input, and hands over to Hydra.

`embedgrad --help` must answer at once and wrong input before torch is loaded, so everything heavy is imported late.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from embedgrad_cli import __version__
from embedgrad_cli.cli.help import OVERVIEW, command_help
from embedgrad_cli.config.arm_spec import quote_texts
from embedgrad_cli.errors import ConfigError, EmbedgradError

if TYPE_CHECKING:
    from argparse import Namespace

    from omegaconf import DictConfig

COMMANDS = ("optimize", "evaluate", "export", "inspect", "compare", "tasks")
COMPLETION_FLAGS = ("-sc", "--shell-completion")
MODES = {"--predict-only": "mode=predict-only", "--regrade": "mode=regrade"}
PUSH = "--push"
SEARCH = {"search=true": "search.budget=10000", "search=false": "search.budget=0"}
INTERRUPTED = 130


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
    _run_hydra(command, [*flags, *args.overrides])
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


def _run_hydra(command: str, argv: list[str]) -> None:
    """Let Hydra run the job, or the jobs of a sweep, or print what its flags ask for."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from embedgrad_cli.config.build import conf_dir
    from embedgrad_cli.config.compose import VERSION_BASE, config_of_job

    failures: list[EmbedgradError] = []
    done: list[str] = []  # what to say in the end

    def job(cfg: DictConfig) -> Any:
        context = HydraConfig.get()
        in_sweep = context.mode == RunMode.MULTIRUN
        if in_sweep:
            print(f"job {context.job.num}: {' '.join(context.overrides.task)}", flush=True)
        try:
            config = config_of_job(command, cfg)
            result = _subcommand(command)(config)
            if command == "optimize":
                done[:] = [_all_runs(context.sweep.dir) if in_sweep else _next_steps(config.output_dir)]
            return result
        except EmbedgradError as error:
            if in_sweep and error.exit_code == INTERRUPTED:  # Hydra would go on with the next job
                raise KeyboardInterrupt(str(error)) from error
            if in_sweep:  # Hydra names the job that failed; after a single one it would only add noise
                raise
            failures.append(error)
            return None

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through to `main` as they are
    before, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        hydra.main(config_path=str(conf_dir()), config_name=command, version_base=VERSION_BASE)(job)()
    except HydraException as error:
        raise ConfigError([str(error)]) from error
    finally:
        sys.argv = before
    if failures:
        raise failures[0]
    print("".join(done), end="")


def _next_steps(output_dir: str) -> str:
    artifact = shlex.quote(f"{output_dir}/prompt.safetensors")
    exported = shlex.quote(f"{output_dir}/exported")
    return (
        "Next:\n"
        f"  embedgrad evaluate artifact={artifact} split=validation\n"
        f"  embedgrad export artifact={artifact} format=embeds output_dir={exported}\n"
        '  your own data: "A task of your own" in the README\n'
    )


def _all_runs(sweep_dir: str) -> str:
    return f"All runs in one table: embedgrad compare {shlex.quote(sweep_dir)}\n"


def _subcommand(command: str) -> Any:
    """The function that does the work. It imports torch, so only a checked config gets this far."""
    from importlib import import_module

    return import_module(f"embedgrad_cli.commands.{command}").run


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
    from embedgrad_cli.config.build import nearest

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
