"""What needs a package of its own, and the extra that has it: launchers and sweepers of Hydra, engines, trackers."""

from __future__ import annotations

from importlib.util import find_spec

# Hydra's group and choice: the module that has to be there, and embedgrad's extra that brings it.
NEEDS = {
    ("hydra/launcher", "joblib"): ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    ("hydra/launcher", "submitit_local"): ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    ("hydra/launcher", "submitit_slurm"): ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    ("hydra/sweeper", "optuna"): ("optuna", "optuna"),
}


def not_installed(text: str) -> str | None:
    """The sentence on the first plugin that a text names as `GROUP=CHOICE` or `GROUP/CHOICE` and that is not installed.

    Nothing is imported but the parent packages, which are empty.
    """
    for (group, choice), (module, extra) in NEEDS.items():
        if any(f"{group}{mark}{choice}" in text for mark in "=/") and not _is_there(module):
            return f"{group}={choice} is not installed: pip install 'embedgrad[{extra}]'."
    return None


def engine_missing(engine: str) -> str | None:
    """The sentence on an engine that is not installed."""
    if _is_there(engine):
        return None
    return f"engine={engine} is not installed: pip install 'embedgrad[{engine}]'."


def tracker_missing(tracker: str) -> str | None:
    """The sentence on a tracker that is not installed."""
    if tracker == "none" or _is_there(tracker):
        return None
    return f"tracker={tracker} is not installed: pip install 'embedgrad[{tracker}]'."


def sweeper_problems(command: str, sweeper: str | None, dry_run: bool) -> list[str]:
    """What is wrong with the sweeper that a command line chose."""
    if sweeper != "optuna":
        return []
    if missing := not_installed("hydra/sweeper=optuna"):
        return [missing]
    if command != "optimize":
        return [
            "hydra/sweeper=optuna: a search chooses by validation, which only `embedgrad optimize` has; a choice by "
            "test figures would be one on the test rows."
        ]
    return ["hydra/sweeper=optuna: a forecast does not train, so it cannot search. Leave one of them out."] * dry_run


def _is_there(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of its parent
        return False
    return spec is not None and spec.origin is not None  # without one it is a folder that W&B, say, left behind
