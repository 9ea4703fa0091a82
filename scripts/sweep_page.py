"""docs/defaults.md from finished runs of `embedgrad optimize`: what settings are worth, with pictures beside the page.

    python scripts/sweep_page.py RUN_DIR… --out docs/defaults.md
    python scripts/sweep_page.py outputs/sweep --titles smollm2=SmolLM2-135M-Instruct --out docs/defaults.md

A folder may be a run directory or hold some anywhere below it. Runs that differ in their seed alone are one setting;
folds of one seed are pooled. A run without results is named on the page and left out.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_atomically
from sweeps.page import page
from sweeps.settings import Section, read_sections


def title(argument: str) -> tuple[str, str]:
    """`smollm2=SmolLM2-135M-Instruct`"""
    name, equals, words = argument.partition("=")
    if not (name and equals and words):
        raise argparse.ArgumentTypeError(f"{argument}: expected NAME=TITLE")
    return name, words


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_DIR", help="run directories, or folders of them")
    parser.add_argument(
        "--titles", type=title, nargs="+", default=[], metavar="NAME=TITLE", help="of models, by their folder's name"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the page; pictures go to pictures/ beside it"
    )
    args = parser.parse_args(arguments)
    sections, left_out = read_sections(args.folders, dict(args.titles))
    if not sections:
        raise UserError(f"no finished optimisation below {', '.join(map(str, args.folders))}. {' '.join(left_out)}")

    def draw(section: Section) -> dict[str, str]:
        from figures import file_name  # needs matplotlib, which nothing else here does
        from sweeps.plots import plot_courses, plot_settings

        rows = f"{section.num_validation or ''}-{section.num_test}"
        plots = {"validation over the steps": (plot_courses, "courses")}
        if len(section.settings) > 1:
            plots = {"accuracy by setting": (plot_settings, "settings"), **plots}
        names = {}
        for shown, (plot, kind) in plots.items():
            names[shown] = file_name(args.out.stem, section.model, section.task, rows, kind)
            plot(section, args.out.parent / names[shown])
        return names

    titles = [f"{name}={words}" for name, words in args.titles]
    command = ["python", "scripts/sweep_page.py", "RUN_DIR", *(["--titles", *titles] if titles else [])]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = page(sections, left_out, f"{shlex.join(command)} --out docs/{args.out.name}", draw)
    write_atomically(args.out, text.encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EmbedgradError as problem:
        print(f"sweep_page: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
