"""What torchrun says in the environment to each process that it starts. No torch."""

from __future__ import annotations

import os
import time

from embedgrad_cli.errors import EndedElsewhere, UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FIRST_SPEAKS_S = 30.0  # the first process has it to find and to say what is wrong with the settings


def in_group() -> bool:
    """Whether this process is one of several that were started together."""
    return all(name in os.environ for name in NEEDED) and count() > 1


def count() -> int:
    """How many processes these are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this is the process that says what all of them could say: alone, or the first one."""
    return not in_group() or os.environ["RANK"] == "0"


def let_first_speak() -> None:
    """For an error that every process should find by itself: a signal ends this one once the first has said it.

    If it ended at once, torchrun might end the first one before its word. Where none comes, the first one has not seen
    the error, and the word is this one's.
    """
    if not speaks():
        time.sleep(FIRST_SPEAKS_S)


def refuse_group(what: str) -> None:
    """For what one process runs.

    Raises:
        UserError: it was started in several; EndedElsewhere in all of them but the first.
    """
    if in_group():
        error = UserError(
            f"{what} was started in {count()} processes, and only an optimisation or an evaluation, by "
            "embedgrad's own decoding, shares its work between them. Start it without torchrun; for a sweep whose jobs "
            "have several processes each, give launch.processes=N."
        )
        raise error if speaks() else EndedElsewhere(str(error))
