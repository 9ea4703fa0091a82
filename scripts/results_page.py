"""docs/results.md from the finished cells of `compare_methods.py`, with a picture of every learning curve beside it.

    python scripts/results_page.py WORK_DIR… --out docs/results.md [--keep DIR]

What the page says already of other models and tasks stays as it stands. `--keep` copies the records of the cells, some
kilobytes each, so that DIR can be a WORK_DIR when the page is written again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_atomically
from methods.page import Section, page
from methods.records import keep_records, read_work


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="+", metavar="WORK_DIR", help="folders of compare_methods.py --out")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the page; pictures go to pictures/ beside it"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to keep the records that the page is made of")
    parser.add_argument("--note", default="", metavar="TEXT", help="how these cells were run; kept with them")
    args = parser.parse_args(arguments)
    finished = [one for folder in args.work for one in read_work(folder)]
    if args.note:  # a series that has one keeps it
        finished = [replace(one, series=replace(one.series, note=one.series.note or args.note)) for one in finished]
    if not finished:
        raise UserError(f"no finished cell below {', '.join(map(str, args.work))}: run compare_methods.py first.")

    def draw(section: Section) -> str | None:
        if not section.curves:
            return None
        from figures import file_name  # needs matplotlib, which nothing else here does
        from methods.curves import plot_curves

        name = file_name("results", section.series.model, section.key)
        plot_curves(section, args.out.parent / name)
        return name

    args.out.parent.mkdir(parents=True, exist_ok=True)
    earlier = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    write_atomically(args.out, page(finished, draw, earlier).encode())
    if args.keep:
        keep_records(finished, args.keep)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EmbedgradError as problem:
        print(f"results_page: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
