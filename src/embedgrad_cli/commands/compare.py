"""One table over finished runs of `optimize` and `evaluate`: the settings in which they differ, and what came out.

The best in validation is first and named with its test, since a choice by a test figure is a choice on the test rows.
p is Holm's, corrected for all lines of a table. Runs without results.json are named on stderr and left out. Runs that
differ in task.fold alone share a line: their counts are summed, and the intervals and p are computed from the sums.
Runs that differ in their seed alone share one too: mean, standard deviation, number of seeds.

examples:
  embedgrad compare outputs/sweep
  embedgrad compare outputs/a outputs/b --sort=lr --format md
  embedgrad compare outputs/seeds --each-seed
  embedgrad compare outputs --mixed --format csv > runs.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedgrad_cli.commands.flags import FlagParser, check_format, is_setting
from embedgrad_cli.comparison.entries import (
    VALIDATION,
    Entry,
    by_test_set,
    by_validation,
    differing_settings,
    entry_of,
    judged,
    keys_of,
    pool_seeds,
)
from embedgrad_cli.comparison.formats import FORMATS
from embedgrad_cli.comparison.runs import Run, few, name_templates, pool_folds, read_runs
from embedgrad_cli.comparison.sections import HEADINGS, heading, title
from embedgrad_cli.config.spelling import natural, nearest
from embedgrad_cli.errors import CompareError, UserError
from embedgrad_cli.guards.visible_text import visible

CANDIDATE = "candidate"  # sorts by the test accuracy of each run's own candidate


def parser() -> FlagParser:
    """The flags, and the help."""
    flags = FlagParser(
        __doc__,
        prog="embedgrad compare",
        usage="embedgrad compare DIR ... [--format FORMAT] [--sort KEY] [--each-seed] [--mixed]",
    )
    flags.add_argument(
        "folders", nargs="*", metavar="DIR", help="a run directory, or a folder with run directories anywhere below it"
    )
    flags.add_argument(
        "--format",
        default="table",
        metavar="FORMAT",
        help="table (the default), md, csv or json; csv and json have one record per row, and full precision",
    )
    flags.add_argument(
        "--sort",
        default=f"-{VALIDATION}",
        metavar="KEY",
        help="a column (run, validation, optimized, difference, p, n, drift, nearest_kept, elsewhere) or a setting "
        "(optimizer.lr, or lr); -KEY puts the largest first. The default is -validation; -candidate is the most "
        "accurate in the test",
    )
    flags.add_argument("--each-seed", action="store_true", help="a line for each seed, where runs differ in it alone")
    flags.add_argument(
        "--mixed",
        action="store_true",
        help="allow runs that were tested on different rows: one table for each test set",
    )
    return flags


def main(argv: Sequence[str]) -> int:
    """Print the table of the command line's folders. Returns: exit code 0.

    Raises:
        ConfigError: a flag is wrong.
        CompareError: a folder is wrong, a run cannot be read, or the runs were tested on different rows.
    """
    args, problems = _parse(argv)
    runs, unfinished, more = read_runs(args.folders)
    if problems or more:
        raise CompareError(problems + more)
    entries = [entry_of(run) for run in pool_folds(name_templates(runs))]
    if not args.each_seed:
        entries = pool_seeds(entries)
    groups = by_test_set(entries)
    if len(groups) > 1 and not args.mixed:
        problems = [_not_comparable(groups)]
    descending, name = args.sort.startswith("-"), args.sort.removeprefix("-")
    try:
        key = _sort_key(entries, name)
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise CompareError(problems)
    if unfinished:
        print(f"embedgrad: not finished and left out: {', '.join(map(str, unfinished))}", file=sys.stderr)
    if key.startswith(("arms.", "comparison.")) or key == CANDIDATE:
        print(f"embedgrad: sorted by a test figure ({name}): do not choose by it.", file=sys.stderr)
    for notice in _template_additions(runs):
        print(visible(f"embedgrad: {notice}"), file=sys.stderr)
    FORMATS[args.format]([_sorted(judged(group), key, descending) for group in groups])
    return 0


def _template_additions(runs: Sequence[Run]) -> list[str]:
    """A sentence for everything that a chat template wrote by itself, with the runs that it is in."""
    found: dict[tuple[str, str, str], list[Path]] = {}
    for run in runs:
        for kind, text, arms in run.results.template_additions:
            found.setdefault((kind, text, ", ".join(arms)), []).append(run.paths[0])
    return [
        f"the chat template adds {kind} of its own under {arms} ({few(paths)}): {text!r}"
        for (kind, text, arms), paths in found.items()
    ]


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and folders, and what is wrong with them."""
    flags = parser()
    args, problems = flags.parse(_join_sort(argv))
    problems += check_format(args.format, FORMATS)
    if not args.folders:
        problems.append("no folder is given. Name run directories or folders of them: embedgrad compare outputs/sweep")
    problems += flags.misplaced_settings(args.folders)
    args.folders = [word for word in args.folders if not is_setting(word)]
    return args, problems


def _join_sort(argv: Sequence[str]) -> Sequence[str]:
    """`--sort -lr` as `--sort=-lr`, so that the parser does not take the key for a flag."""
    if "--sort" not in argv[:-1]:
        return argv
    at = argv.index("--sort")
    return [*argv[:at], f"--sort={argv[at + 1]}", *argv[at + 2 :]]


def _not_comparable(groups: Sequence[Sequence[Entry]]) -> str:
    named = "; ".join(f"{title(group[0])}: {few([entry.paths[0] for entry in group])}" for group in groups)
    return (
        f"the runs were tested on different rows, so their accuracies cannot be compared. {named}. Give the runs of "
        "one test set, or add --mixed for one table per test set."
    )


def _sort_key(entries: Sequence[Entry], name: str) -> str:
    """The key of the records that is meant: in full, as a column is called, or by its last part.

    Raises:
        UserError: there is no such key, or several.
    """
    records = [entry.record for entry in entries]
    keys = keys_of(records)
    if name in (CANDIDATE, *keys):
        return name
    accuracies = [key for key in keys if key.startswith("arms.") and key.endswith(".accuracy")]
    columns = {key: heading(key, keys) for key in [*differing_settings(records), *accuracies, *HEADINGS]}
    found = [key for key, shown in columns.items() if shown == name] or [k for k in keys if k.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"--sort {name}: this may be {' or '.join(found)}. Give the one that is meant.")
    known = ["run", *columns.values()]
    close = nearest(name, [*known, *(heading(key, keys) for key in keys if key.startswith("config."))])
    hint = f" Did you mean {close}?" if close else ""
    raise UserError(f"--sort {name}: there is no such column or setting.{hint} Columns are {', '.join(known)}.")


def _sorted(group: Sequence[Entry], key: str, descending: bool) -> list[Entry]:
    """Numbers before texts, and runs without a value last; what is equal stays in natural order."""

    def value(entry: Entry) -> Any:
        return entry.record.get(entry.candidate if key == CANDIDATE else key)

    def rank(entry: Entry) -> tuple[int, Any]:
        found = value(entry)
        if key == VALIDATION:
            return 0, by_validation(entry)
        return (0, found) if isinstance(found, int | float) else (1, natural(str(found)))

    present = sorted((entry for entry in group if value(entry) is not None), key=rank, reverse=descending)
    return present + [entry for entry in group if value(entry) is None]
