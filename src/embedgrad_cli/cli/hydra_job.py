"""Hands a checked command line over to Hydra, which runs the job, or the jobs of a sweep."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from embedgrad_cli.cli.names import INTERRUPTED
from embedgrad_cli.commands import run_job
from embedgrad_cli.errors import ConfigError, EmbedgradError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_hydra(command: str, argv: list[str]) -> None:
    """Let Hydra run the job, or the jobs of a sweep, or print what its flags ask for."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from embedgrad_cli.config.compose import VERSION_BASE, config_of_job
    from embedgrad_cli.config.folder import conf_dir

    failures: list[EmbedgradError] = []
    done: list[str] = []  # what to say in the end

    def job(cfg: DictConfig) -> Any:
        context = HydraConfig.get()
        in_sweep = context.mode == RunMode.MULTIRUN
        if in_sweep:
            print(f"job {context.job.num}: {' '.join(context.overrides.task)}", flush=True)
        try:
            config = config_of_job(command, cfg)
            result = run_job(config)
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
