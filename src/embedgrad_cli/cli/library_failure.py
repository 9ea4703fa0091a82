"""What a library raised under a command, as a paragraph. Faults of embedgrad's own keep their traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from types import TracebackType

from embedgrad_cli.errors import LibraryError

OWN = "embedgrad_cli"
OF_A_MODEL = "transformers_modules"  # code that lies beside a model's weights
TRACEBACK = "EMBEDGRAD_TRACEBACK"


def library_error(error: Exception) -> LibraryError | None:
    """The paragraph for an exception that was raised in a library's code.

    Returns: None where it is embedgrad's own fault, as far as one can tell: its own code, or Python's, raised it; and
        where the user wants to see the traceback.
    """
    known = {*packages_distributions(), OF_A_MODEL} - {OWN}
    libraries = [name for name in _called_last(error.__traceback__) if name in known]
    if not libraries or os.environ.get(TRACEBACK):
        return None
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    return LibraryError(
        f"the library {libraries[0]} failed{where}: {cause_of(error)}. The "
        "model may need another version of it, or be one that embedgrad cannot drive; try the command with another "
        f"model. With {TRACEBACK}=1 in the environment the command shows where it failed; embedgrad.log has it too, "
        "where the run has one."
    )


def cause_of(error: Exception) -> str:
    """The kind of an exception and its first line, without a full stop."""
    why = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {why}" if why else type(error).__name__


def _called_last(traceback: TracebackType | None) -> list[str]:
    """The packages of the frames that embedgrad's last frame led to, in the order of the calls.

    PyTorch's way into every module says nothing of the module: it is named only if it is alone.
    """
    names = list(_packages(traceback))
    last = max((i for i, name in enumerate(names) if name == OWN), default=-1)
    called = list(dict.fromkeys(names[last + 1 :]))
    return [name for name in called if name != "torch"] or called


def _packages(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        traceback = traceback.tb_next
