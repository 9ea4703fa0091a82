"""Runs the jobs of a sweep, each in a run directory of its own, in this process or in those of a launcher.

A job that fails is an outcome like any other, so no launcher and no sweeper drops the jobs beside it. The sweep ends
with what failed, and the same command then runs only what is missing, because a run directory knows how far it is.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from embedgrad_cli.cli.hydra_job import run
from embedgrad_cli.cli.job_outcome import JobOutcome, Pruned, SweepFailed
from embedgrad_cli.cli.library_failure import cause_of, explanation
from embedgrad_cli.cli.names import INTERRUPTED
from embedgrad_cli.cli.study import pruning
from embedgrad_cli.commands import run_forecast
from embedgrad_cli.errors import ConfigError, EmbedgradError
from embedgrad_cli.guards.typed_settings import typed
from embedgrad_cli.parallel.environment import refuse_group

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from embedgrad_cli.config.compose import CheckedLine, Request


@dataclass(frozen=True)
class SweepJob:
    """What Hydra calls with the composed config of each job; it can be pickled, for the launchers that do that.

    Args:
        process: the sweep's. A process that it started, such as joblib's, ends with it.
    """

    request: Request
    process: int = field(default_factory=os.getpid)

    def __call__(self, cfg: DictConfig) -> JobOutcome:
        """Run the job. Returns: what came of it, a failure included.

        Raises:
            KeyboardInterrupt: asked to stop; the sweep is to stop as well.
        """
        from hydra.core.hydra_config import HydraConfig

        if os.getppid() == self.process:
            end_with(self.process)
        hydra: Any = HydraConfig.get()
        name, overrides = str(hydra.sweep.subdir), tuple(hydra.overrides.task)
        print(f"job {name}: {' '.join(overrides)}", flush=True)
        outcome = JobOutcome(sweep_dir=str(hydra.sweep.dir), name=name, overrides=overrides)
        try:
            return replace(outcome, value=self._run(cfg, hydra))
        except Pruned:
            return replace(outcome, pruned=True)
        except EmbedgradError as error:
            if error.exit_code == INTERRUPTED:
                if _orphaned.is_set():
                    os._exit(INTERRUPTED)  # nobody waits for the outcome, and the next job is not to begin
                raise KeyboardInterrupt(str(error)) from error
            return replace(outcome, failure=str(error), exit_code=error.exit_code)
        except Exception as error:
            if (explained := explanation(error)) is None:
                traceback.print_exc()
            return replace(outcome, failure=str(explained or cause_of(error)), exit_code=1)

    def _run(self, cfg: DictConfig, hydra: Any) -> float | None:
        from embedgrad_cli.config.compose import config_of_job

        config = config_of_job(self.request.command, cfg)
        if self.request.dry_run is None:
            return run(self.request, config, hydra.overrides.task, pruning(hydra))
        run_forecast(config, self.request.dry_run)
        return None


_orphaned = threading.Event()


@cache
def end_with(parent: int) -> None:
    """Stop this process, as SIGTERM does, when its parent has ended.

    A worker whose sweep was killed would go on with its job, and the same command would find the run directory in use.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        _orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_sweep(request: Request, line: CheckedLine) -> None:
    """Let Hydra's sweeper find the jobs of a checked command line and its launcher run them.

    Raises:
        SweepFailed: names the jobs that failed, after the others are done; or the launcher lost one.
        ConfigError: the sweep cannot be made.
    """
    from hydra._internal.hydra import Hydra
    from hydra.errors import HydraException

    assert line.loader is not None
    refuse_group("--multirun")
    with TemporaryDirectory() if request.dry_run is not None else nullcontext() as nowhere:
        # Hydra writes down what a sweep is; a forecast leaves nothing behind.
        leaves_nothing = [f"hydra.sweep.dir={nowhere}"] * (nowhere is not None)
        try:
            batches = Hydra(task_name=request.command, config_loader=line.loader).multirun(
                config_name=request.config_name or request.command,
                task_function=SweepJob(request),
                overrides=[*request.overrides, *leaves_nothing],
            )
        except HydraException as error:
            hint = ". A range is for hydra/sweeper=optuna." * ("INTERVAL_SWEEP" in str(error))
            raise ConfigError([f"{error}{hint}"]) from error
        except EmbedgradError:
            raise
        except Exception as error:
            if explanation(error) is None:
                raise
            raise SweepFailed(
                f"the sweep ended early, because a launcher or sweeper failed: {cause_of(error)}. It may be that a job "
                "was killed. What is finished is kept; the same command with the same output_dir goes on from there."
            ) from error
    outcomes: list[JobOutcome] = [job.return_value for batch in batches or [] for job in batch]
    if request.command == "optimize" and request.dry_run is None:
        print("".join(map(_all_runs, dict.fromkeys(outcome.sweep_dir for outcome in outcomes))), end="")
    if any(outcome.failure is not None for outcome in outcomes):
        raise SweepFailed(_failures(outcomes))


def _failures(outcomes: list[JobOutcome]) -> str:
    """What failed, each with the settings that are its own; what failed with the same words in one line."""
    shared = set[str].intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    alike: dict[str, list[str]] = {}
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed:
        own = " ".join(word for word in outcome.overrides if word not in shared)
        alike.setdefault(str(outcome.failure), []).append(f"{outcome.name} ({own})" if own else outcome.name)
    place = failed[0].sweep_dir
    return "\n".join(
        [
            f"{len(failed)} of {len(outcomes)} runs failed. The others are kept in {place}, and the same command with "
            f"{typed('output_dir', place)} runs only what is missing.",
            *(f"  - {', '.join(jobs)}: {failure}" for failure, jobs in alike.items()),
        ]
    )


def _all_runs(sweep_dir: str) -> str:
    return f"All runs in one table: embedgrad compare {shlex.quote(sweep_dir)}\n"
