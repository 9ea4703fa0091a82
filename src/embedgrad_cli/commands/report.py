"""Finished runs as one HTML file that opens from disk and asks nobody for anything. `optimize` and `evaluate` write
that of their run by themselves, unless told report=false.

Of one run: the verdict with its intervals, the training, every tested row with every arm's answers, the prompt token by
token, and where it all comes from. Of several: their settings against validation, and the test of the one it chose.

examples:
  embedgrad report outputs/demo
  embedgrad report outputs/sweep
  embedgrad report outputs/a outputs/b output=both.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from embedgrad_cli.commands.flags import FlagParser, is_setting
from embedgrad_cli.comparison.runs import few, read_runs
from embedgrad_cli.errors import CompareError, ConfigError
from embedgrad_cli.storage.run_lock import lock_export

OUTPUT = "output="
SUFFIXES = (".html", ".htm")


def parser() -> FlagParser:
    """The words, and the help."""
    flags = FlagParser(__doc__, prog="embedgrad report", usage="embedgrad report DIR ... [output=FILE.html]")
    flags.add_argument(
        "words",
        nargs="*",
        metavar="DIR",
        help="a run directory, or a folder with run directories anywhere below it; output=FILE.html says where the "
        "page goes (the default: report.html in DIR)",
    )
    return flags


def main(argv: Sequence[str]) -> int:
    """Write the page of the command line's folders and print its name. Returns: exit code 0.

    Raises:
        ConfigError: no folder is given, or no place for the page of several.
        CompareError: a folder is wrong, or a run cannot be read.
        UserError: a file of a run cannot be read, or the page cannot be written.
    """
    flags = parser()
    args, problems = flags.parse(argv)
    words = [word for word in args.words if not word.startswith(OUTPUT)]
    problems += flags.misplaced_settings(words)
    folders = [word for word in words if not is_setting(word)]
    outputs = [word.removeprefix(OUTPUT) for word in args.words if word.startswith(OUTPUT)]
    problems += _problems(folders, outputs)
    if problems:
        raise ConfigError(problems)
    runs, unfinished, problems = read_runs(folders)
    if problems:
        raise CompareError(problems)

    from embedgrad_cli.reports.write import REPORT, write_run_report, write_runs_report

    file = Path(outputs[0] if outputs else Path(folders[0]) / REPORT)
    with lock_export(file, "output") if os.access(file.parent, os.W_OK) else nullcontext():
        if len(runs) == 1:
            write_run_report(runs[0].paths[0], file)
        else:
            write_runs_report(runs, unfinished, folders, file)
    if unfinished:
        print(f"embedgrad: not finished and left out: {few(unfinished)}", file=sys.stderr)
    print(file)
    return 0


def _problems(folders: Sequence[str], outputs: Sequence[str]) -> list[str]:
    problems = []
    if not folders:
        problems.append("no folder is given. Name a run directory or a folder of them: embedgrad report outputs/demo")
    if len(folders) > 1 and not outputs:
        problems.append("of several folders, say where the page goes: output=FILE.html")
    if len(outputs) > 1:
        problems.append(f"output= is given {len(outputs)} times. Give it once.")
    problems += [
        f"output={name}: expected is the name of an HTML file, such as output=report.html."
        for name in outputs
        if not name.endswith(SUFFIXES)
    ]
    return problems
