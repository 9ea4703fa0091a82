"""Writes the page of one run directory, or of several."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from embedgrad_cli.comparison.runs import Run
from embedgrad_cli.errors import UserError
from embedgrad_cli.reports.render import render
from embedgrad_cli.reports.run_page import read_run_page
from embedgrad_cli.reports.runs_page import REPORT, runs_page
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.run_directory import RunDirectory

log = logging.getLogger(__name__)


def write_run_report(path: Path, file: Path | None = None) -> Path:
    """Write a finished run's page. The same files give the same bytes.

    Args:
        file: where to; None: `report.html` in the run directory.

    Returns: the file.

    Raises:
        UserError: a file of the run directory cannot be read, or is not what `optimize` and `evaluate` write; or the
            page cannot be written.
    """
    file = file or path / REPORT
    _write(file, render("run.html.j2", page=read_run_page(path)))
    return file


def write_runs_report(runs: Sequence[Run], unfinished: Sequence[Path], folders: Sequence[str], file: Path) -> None:
    """Write the page of several finished runs, found below some folders.

    Raises:
        UserError: a file of a run cannot be read, the runs hold a fold twice, or the page cannot be written.
    """
    command = shlex.join(["embedgrad", "report", *folders, f"output={file}"])
    _write(file, render("runs.html.j2", page=runs_page(runs, unfinished, file, " ".join(folders), command)))


def report_of_run(path: Path, is_wanted: bool) -> None:
    """Write the page at the end of a run, whose results are complete without it: what fails is logged."""
    if not is_wanted:
        return
    try:
        write_run_report(path)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        log.warning("%s was not written (%s); embedgrad report %s does it", REPORT, what, path)


def finish(directory: RunDirectory, with_report: bool) -> None:
    """What a run does last, once it has results: its page, and then nothing is left of what it would go on from."""
    report_of_run(directory.path, with_report)
    directory.forget_unfinished()


def _write(file: Path, page: bytes) -> None:
    try:
        write_atomically(file, page)
    except OSError as error:
        raise UserError(
            f"output={file} cannot be written: {error.strerror or error}. Give a file in a folder that is there and "
            "can be written, for instance output=report.html."
        ) from error
