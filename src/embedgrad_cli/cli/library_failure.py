"""What the system or a library raised under a command, as a paragraph. embedgrad's own faults keep their traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from types import TracebackType

from embedgrad_cli.errors import EmbedgradError, LibraryError, SystemRefused

OWN = "embedgrad_cli"
OF_A_MODEL = "transformers_modules"  # code that lies beside a model's weights
TRACEBACK = "EMBEDGRAD_TRACEBACK"


def explanation(error: Exception) -> EmbedgradError | None:
    """The paragraph for an exception that is not one of embedgrad's messages.

    Returns: None where it is embedgrad's own fault, as far as one can tell, and where the user wants the traceback.
    """
    if os.environ.get(TRACEBACK):
        return None
    return system_error(error) or library_error(error)


def system_error(error: Exception) -> SystemRefused | None:
    """The paragraph for what the operating system refused, to whomever; None where it is something else."""
    if _is_out_of_memory(error):
        return SystemRefused(
            f"memory ran out ({cause_of(error)}). A smaller model, model.dtype=bfloat16, smaller batches or shorter "
            "rows need less; embedgrad optimize --dry-run says how much a run takes. What was written before is whole: "
            "the same command with the same output_dir goes on from there."
        )
    if not isinstance(error, OSError) or error.errno is None:  # libraries raise OSErrors that no system raised
        return None
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' and '.join(places)}: " if places else ""
    return SystemRefused(
        f"the system refused: {where}{error.strerror or cause_of(error)}. What was written before is whole. Once there "
        "is room, or the right, or the folder is back, the same command with the same output_dir goes on from there. "
        f"With {TRACEBACK}=1 in the environment the command shows where it failed."
    )


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from embedgrad_cli.core.kernels.memory import is_out_of_memory

    return is_out_of_memory(error)


def library_error(error: Exception) -> LibraryError | None:
    """The paragraph for an exception that was raised in a library's code.

    Returns: None where it is embedgrad's own fault, as far as one can tell: its own code, or Python's, raised it.
    """
    known = {*packages_distributions(), OF_A_MODEL} - {OWN}
    libraries = [name for name in _called_last(error.__traceback__) if name in known]
    if not libraries:
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
