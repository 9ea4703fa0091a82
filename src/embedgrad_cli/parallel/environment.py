"""What torchrun says in the environment to each process that it starts. No torch."""

from __future__ import annotations

import os

from embedgrad_cli.errors import EndedElsewhere, UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def in_group() -> bool:
    """Whether this process is one of several that were started together."""
    return all(name in os.environ for name in NEEDED) and count() > 1


def count() -> int:
    """How many processes these are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this is the process that says what all of them could say: alone, or the first one."""
    return not in_group() or os.environ["RANK"] == "0"


def refuse_group(what: str) -> None:
    """For what one process runs.

    Raises:
        UserError: it was started in several; EndedElsewhere in all of them but the first.
    """
    if in_group():
        _refuse(
            f"{what} was started in {count()} processes, and only one optimisation shares its work between them. Start "
            "it without torchrun; for a sweep whose jobs have several processes each, give launch.processes=N."
        )


def refuse_engine_in_group(engine: str | None) -> None:
    """As `refuse_group`, for an engine that answers for one process."""
    if engine is not None and in_group():
        _refuse(
            f"engine={engine}: it answers for one process, which also trains, and this run was started in {count()}. "
            "Leave the engine out, or start the run without torchrun."
        )


def _refuse(problem: str) -> None:
    error = UserError(problem)
    raise error if speaks() else EndedElsewhere(problem)
