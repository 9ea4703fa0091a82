"""Runs the one job of a checked command line by way of Hydra, or lets Hydra show what its flags ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from embedgrad_cli.assets import PREFIX
from embedgrad_cli.cli.library_failure import explanation
from embedgrad_cli.commands import run_forecast, run_job, run_processes
from embedgrad_cli.config.schema import WITHOUT_EFFECT, OptimizeConfig
from embedgrad_cli.errors import ConfigError, EmbedgradError
from embedgrad_cli.guards.typed_settings import in_quotes, typed
from embedgrad_cli.parallel.environment import in_group, speaks

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from embedgrad_cli.config.build import Config
    from embedgrad_cli.config.compose import CheckedLine, Request


def run_once(request: Request, line: CheckedLine) -> None:
    """Run the one job of a command line. Its config is composed and built already, so Hydra only surrounds it."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job as run_in_hydra
    from hydra.types import HydraContext

    assert line.config is not None
    assert line.composed is not None
    assert line.loader is not None
    config, overrides = line.config, line.composed.hydra.overrides.task
    failures: list[EmbedgradError] = []

    def job(_: DictConfig) -> float | None:
        try:
            if request.dry_run is not None:
                run_forecast(config, request.dry_run)
                return None
            return run(request, config, overrides)
        except EmbedgradError as error:  # of which Hydra would say that a job failed, and with which overrides
            failures.append(error)
        except Exception as error:
            if (explained := explanation(error)) is None:
                raise
            failures.append(explained)
        return None

    callbacks = Callbacks(line.composed)
    callbacks.on_run_start(config=line.composed, config_name=request.command)
    done = run_in_hydra(
        job,
        line.composed,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=line.loader, callbacks=callbacks),
        configure_logging=False,  # embedgrad keeps its own log
    )
    callbacks.on_run_end(config=line.composed, config_name=request.command, job_return=done)
    _ = done.return_value  # raises what else the job raised
    if failures:
        raise failures[0]
    # What has started processes leaves that to the first of them, which has also found a name for the folder.
    if isinstance(config, OptimizeConfig) and request.dry_run is None and speaks() and not _processes(config):
        print(_next_steps(config), end="")


def run_hydra(request: Request, argv: list[str]) -> None:
    """Let Hydra print what its flags ask for. No job runs."""
    import hydra
    from hydra.errors import HydraException

    from embedgrad_cli.config.compose import VERSION_BASE
    from embedgrad_cli.config.folder import conf_dir

    def job(_: DictConfig) -> None:
        raise AssertionError("Hydra was asked to show something, and ran the job")

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through to `main` as they are
    before = sys.argv
    try:
        sys.argv = [before[0], *argv]
        hydra.main(config_path=str(conf_dir()), config_name=request.command, version_base=VERSION_BASE)(job)()
    except HydraException as error:
        raise ConfigError([str(error)]) from error
    finally:
        sys.argv = before


def run(
    request: Request,
    config: Config,
    overrides: Sequence[str],
    on_validation: Callable[[int, float], None] | None = None,
) -> float | None:
    """Run a job, in this process or in those that its settings ask for. Returns: what a sweeper maximises.

    Args: on_validation: as for `run_job`; several processes tell nothing.
    """
    if number := _processes(config):
        others = [line for line in overrides if _key(line) != "output_dir"]
        words = [request.command, *_flags(request), *others, f"output_dir={in_quotes(config.output_dir)}"]
        return run_processes(number, words, config.output_dir)
    return run_job(config, recorded_line(request, overrides), on_validation)


def _processes(config: Config) -> int:
    """How many processes this one has to start; 0: it runs the job itself."""
    launch = getattr(config, "launch", None)
    number = (launch.tensor_parallel or launch.processes or 1) if launch else 1
    return number if number > 1 and not in_group() else 0


def recorded_line(request: Request, overrides: Iterable[str]) -> list[str]:
    """What an artifact records of the command line that made it: all that changes a result.

    A folder of the user's own configs is named without its place, which means nothing elsewhere.
    """
    from embedgrad_cli.storage.run_directory import is_among  # and what reads YAML, which completion does without

    keys = {line: _key(line) for line in overrides}
    return [
        *_flags(request, "DIR"),
        *(line for line, key in keys.items() if not (is_among(key, WITHOUT_EFFECT) or key.startswith("hydra"))),
    ]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _flags(request: Request, config_dir: str | None = None) -> list[str]:
    """Hydra's flags that say where configs are; `config_dir` takes the place of the user's folder."""
    flags = [f"--config-dir={config_dir or request.config_dir}"] * (request.config_dir is not None)
    return flags + [f"--config-name={request.config_name}"] * (request.config_name is not None)


def _next_steps(config: OptimizeConfig) -> str:
    folder, embedded = config.output_dir, str(config.task.data_dir).startswith(PREFIX)
    artifact = typed("artifact", f"{folder}/prompt.safetensors")
    exported = typed("output_dir", f"{folder}/exported")
    return (
        "Next:\n"
        + f"  what it fixed and what it broke, row by row: {folder}/report.html\n" * config.report
        + f"  embedgrad evaluate {artifact} 'arms=[seed,optimized,text:\"Another text.\"]'\n"
        + f"  embedgrad export {artifact} format=model {exported}\n"
        + "  your own data: docs/own-csv.md\n" * embedded
    )
