"""One module per subcommand: its docstring is its help, and it reads from top to bottom like what the command does.

`run_job` runs those that Hydra composes a config for; `flag_command` is each of those that take flags of their own.
A module is imported when its command is asked for: those of the jobs import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from embedgrad_cli.commands.flags import FlagParser
    from embedgrad_cli.config.dry_run import DryRun
    from embedgrad_cli.config.schema import EvaluateConfig, ExportConfig, OptimizeConfig


class FlagCommand(Protocol):
    """A module of a subcommand that takes flags of its own."""

    def parser(self) -> FlagParser:
        """The flags of the subcommand, and its help."""

    def main(self, argv: Sequence[str]) -> int:
        """Run the subcommand on the words after its name. Returns: the exit code."""


def run_job(
    config: OptimizeConfig | EvaluateConfig | ExportConfig,
    overrides: Sequence[str] | None = None,
    on_validation: Callable[[int, float], None] | None = None,
) -> float | None:
    """Optimise, evaluate or export, as the class of the config says.

    Args:
        overrides: the command line that gave the config, for the artifact to record.
        on_validation: is told the step and the accuracy of each validation, and may raise to end the run.

    Returns: the accuracy that a sweeper maximises, or None if there is none.
    """
    from embedgrad_cli.config.schema import EvaluateConfig, ExportConfig, OptimizeConfig
    from embedgrad_cli.parallel.environment import refuse_group

    if reason := _why_alone(config):
        refuse_group(reason)
    with _naming_model(config):
        match config:
            case OptimizeConfig():
                from embedgrad_cli.commands import optimize

                return optimize.run(config, overrides, on_validation)
            case EvaluateConfig() if config.server is not None:
                from embedgrad_cli.commands import evaluate_server

                return evaluate_server.run(config)
            case EvaluateConfig():
                from embedgrad_cli.commands import evaluate

                return evaluate.run(config)
            case ExportConfig():
                from embedgrad_cli.commands import export

                export.run(config)
    return None


@contextmanager
def _naming_model(config: OptimizeConfig | EvaluateConfig | ExportConfig) -> Iterator[None]:
    """Within it, what is raised has a note of the model: a library that fails seldom says which one it was given."""
    try:
        yield
    except Exception as error:
        error.add_note(f"model.path={config.model.path}")
        raise


def _why_alone(config: OptimizeConfig | EvaluateConfig | ExportConfig) -> str | None:
    """What cannot be shared by several processes, in words; None: it can."""
    from embedgrad_cli.config.launch_checks import works_alone
    from embedgrad_cli.config.schema import ExportConfig

    return "this command" if isinstance(config, ExportConfig) else works_alone(config)


def run_processes(number: int, words: Sequence[str], output_dir: str) -> float | None:
    """Optimise or evaluate in so many processes, which run `embedgrad WORDS`.

    Returns: the accuracy that a sweeper maximises; None if nothing was graded.
    """
    from embedgrad_cli.parallel.start import start
    from embedgrad_cli.storage.results_record import Results

    start(number, words)
    results = Path(output_dir) / "results.json"
    if words[0] == "optimize":
        return Results.read(results).selection_accuracy
    return Results.read(results).primary_accuracy if results.exists() else None


def run_forecast(config: OptimizeConfig | EvaluateConfig | ExportConfig, request: DryRun) -> None:
    """Say what an optimisation would take, instead of running it."""
    from embedgrad_cli.commands import dry_run
    from embedgrad_cli.config.schema import OptimizeConfig

    assert isinstance(config, OptimizeConfig)  # no other command has the flag
    with _naming_model(config):
        dry_run.run(config, request)


def flag_command(name: str) -> FlagCommand:
    """The module of inspect, compare, report or tasks."""
    match name:
        case "inspect":
            from embedgrad_cli.commands import inspect

            return inspect
        case "compare":
            from embedgrad_cli.commands import compare

            return compare
        case "report":
            from embedgrad_cli.commands import report

            return report
        case "tasks":
            from embedgrad_cli.commands import tasks

            return tasks
    raise LookupError(name)
