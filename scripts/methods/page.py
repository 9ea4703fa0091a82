"""`docs/results.md` from finished cells: per model and task a table, what it says of embedgrad, texts and commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import fmean

from embedgrad_cli.evaluation.significance import SIGNIFICANT, show_p

from .entries import OVERVIEW, REAL_TASKS, Entry, entries_of, merged, place
from .records import Finished, SeriesRecord
from .table import NOT_RUN, REFERENCE, TITLES, Row, arms_of, folds_of, markdown, markdown_table, percent, rows_of

COLUMNS = ("none", "seed", "instructions", REFERENCE, "peft-text", "lora", "text-search")
CURVES = (REFERENCE, "peft-text", "lora")
INTRODUCTION = """# Results on real models

embedgrad beside what people would use instead, on pretrained models and public data. This page is written by

```bash
python scripts/results_page.py docs/cells WORK_DIR --out docs/results.md --keep docs/cells
```

from the finished cells of `scripts/compare_methods.py`; nothing in it is typed by hand but a `--note`, and what was not
run is said to be so. A section whose cells are not at hand stays as it was written; the records of the others are in
`docs/cells`, row by row. Every method got the same rows, batches in the same order, steps, AdamW settings, clipping and
schedule. The step of a training, the learning rate and the best instruction were chosen by validation accuracy, then
loss; the test rows were answered once, by the chosen one alone.

- *Accuracy*: of several seeds (of training rows, order and initial values) the mean, and the range in brackets. The
  interval is Wilson's, for one test of this size at the mean. Folds are pooled before anything is computed.
- *vs embedgrad*: the method's accuracy minus embedgrad's on the same rows of the seeds that both have, with Newcombe's
  interval. p is McNemar's exact one, of several seeds Rüger's; Holm's p corrects for all rows of the table.
- *Learning rate*: the chosen one, of how many that were tried; of prompts in units of the embedding table's RMS.
- *Training s*: the steps of the chosen training. *All s*: everything, starting Python, loading, every learning rate,
  validation and test. Both are for one seed, all its folds.
- *Peak MB*: resident memory at the peak of a training step, weights and libraries included; of a text search, at any
  time.
- *No chat template*: the rows as plain text. *Text search*: swaps of single tokens (`embedgrad export format=text`),
  within so many forward evaluations, from the seed prompt or the nearest tokens of embedgrad's prompt.
"""


@dataclass(frozen=True)
class Section:
    """A model and a task under one set of settings: the arms of every training size, the fullest being the table's."""

    key: str
    finished: list[Finished]

    @property
    def series(self) -> SeriesRecord:
        """With the commands of every folder that it stands in."""
        return reduce(lambda earlier, later: later.after(earlier), (one.series for one in self.finished))

    @property
    def sizes(self) -> list[int]:
        return sorted({one.problem.counts["train"] for one in self.finished})

    def of_size(self, size: int) -> list[Finished]:
        return [one for one in self.finished if one.problem.counts["train"] == size]

    @property
    def main_size(self) -> int:
        """Where most methods have run; of equal ones the largest."""
        return max(self.sizes, key=lambda size: (len(arms_of(self.of_size(size))), size))

    def rows(self, size: int) -> list[Row]:
        return rows_of(arms_of(self.of_size(size)), self.series.kind)

    @property
    def curves(self) -> dict[str, dict[int, list[float]]]:
        """By the title of a method: the accuracies of all seeds by training size, where there are two sizes or more."""
        points: dict[str, dict[int, list[float]]] = {}
        for size in self.sizes:
            for row in self.rows(size):
                if row.arm.method in CURVES:
                    points.setdefault(row.arm.title, {})[size] = row.accuracies
        return {title: of_title for title, of_title in points.items() if len(of_title) > 1}


def sections_of(finished: Sequence[Finished]) -> list[Section]:
    """Models in the order they come in, tasks in the order of the page. A series in two folders is one."""
    groups: dict[str, dict[object, Finished]] = {}
    for one in finished:
        cell = (one.problem.split_hash, one.problem.seed, one.problem.fold, one.cell.method, one.cell.variant)
        groups.setdefault(one.series_key, {})[cell] = one
    models = list(dict.fromkeys(one.series.model for one in finished))
    sections = [Section(key, list(group.values())) for key, group in groups.items()]
    return sorted(sections, key=lambda s: (models.index(s.series.model), place(s.series.task), s.key))


def size_title(one: Finished) -> str:
    """Of a table: the model, the task and what everything was given."""
    series, counts = one.series, one.problem.counts
    train = series.settings["train"]
    return (
        f"{series.model}, {series.task}: {counts['train']} training rows, {train['steps']} steps of "
        f"{train['batch_size']}, {counts['test']} test rows"
    )


def at_end_note(rows: Sequence[Row]) -> list[str]:
    if not any(cell.at_end for row in rows for cell in row.arm.cells):
        return []
    return ["*: the smallest or largest learning rate that was tried; a better one may lie beyond."]


def frozen_note(finished: Sequence[Finished]) -> str:
    """Whether the base weights' hash was the same before and after every training."""
    trials: dict[str, list[bool]] = {}
    for one in finished:
        same = [trial.weights_before == trial.weights_after for trial in one.cell.trials]
        trials.setdefault(TITLES[one.cell.method], []).extend(same)
    changed = [title for title, same in trials.items() if not all(same)]
    if changed:
        return f"The base weights CHANGED under: {', '.join(changed)}."
    return "The base weights' sha256 was the same before and after every training."


def page(finished: Sequence[Finished], figure_of: Callable[[Section], str | None], earlier: str = "") -> str:
    """The page as Markdown.

    Args:
        figure_of: draws a section's learning curves and gives the file's name.
        earlier: the page as it stands; sections that no finished cell belongs to stay there.
    """
    entries = merged([_entry(section, figure_of(section)) for section in sections_of(finished)], entries_of(earlier))
    return "\n".join([INTRODUCTION, overview(entries), *(entry.section.rstrip() + "\n" for entry in entries)])


def _entry(section: Section, figure: str | None) -> Entry:
    rows = section.rows(section.main_size)
    size = str(max((row.size for row in rows), default=""))
    line = [size, *(_shown(rows, name) for name in COLUMNS)]
    return Entry(section.series.model, section.series.task, line, section_text(section, figure))


def overview(entries: Sequence[Entry]) -> str:
    """A line per model and task; those of the plan without an entry are there too."""
    heads = ["model", "task", "n", *(TITLES[name] for name in COLUMNS)]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for model in dict.fromkeys(entry.model for entry in entries):
        own = [entry for entry in entries if entry.model == model]
        lines += [[model, entry.task, *entry.line] for entry in own]
        run = {entry.task for entry in own}
        missing = [task for task in REAL_TASKS if task not in run and not run.isdisjoint(REAL_TASKS)]
        lines += [[model, task, "", *[NOT_RUN] * len(COLUMNS)] for task in missing]
    return f"## {OVERVIEW}\n\nAccuracy in the test.\n\n" + markdown_table(lines)


def _shown(rows: Sequence[Row], method: str) -> str:
    return next((percent(row.accuracy) for row in rows if row.arm.method == method), NOT_RUN)


def section_text(section: Section, figure: str | None) -> str:
    """All of a section but its heading."""
    series, size = section.series, section.main_size
    finished, rows = section.of_size(size), section.rows(size)
    parts = [
        _given(section, finished),
        f"*A note by those who ran it:* {series.note}" if series.note else "",
        markdown(rows, with_missing=True).rstrip(),
        *(note.replace("*:", r"\*:") for note in at_end_note(rows)),
        " ".join([*standing(rows), frozen_note(finished)]),
        instructions_text(finished),
        searched_text(finished),
        curves_text(section, figure),
        "```bash\n" + "\n".join(series.shown_commands) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _given(section: Section, finished: Sequence[Finished]) -> str:
    """Rows, steps, seeds, folds and versions in a sentence or two."""
    series, counts = section.series, finished[0].problem.counts
    train, folds = series.settings["train"], folds_of(finished[0])
    seeds = ", ".join(f"seed {seed}" for seed in sorted({one.problem.seed for one in finished}))
    prompt = " | ".join(series.seed_prompt)
    tested = f"{folds} folds, pooled" if folds > 1 else f"{counts['test']} test rows"
    libraries = ", ".join(f"{name} {version}" for name, version in series.versions.items())
    threads = " or ".join(str(number) for number in sorted({one.cell.threads for one in finished}))
    return (
        f'Seed prompt: "{prompt}" {counts["train"]} training and {counts["validation"]} validation rows, {tested}; '
        f"{train['steps']} steps of {train['batch_size']}; {seeds}. CPU, threads: {threads}. {libraries}."
    )


def standing(rows: Sequence[Row]) -> list[str]:
    """Where embedgrad stands, and where it loses, in sentences."""
    if not any(row.arm.method == REFERENCE for row in rows):
        return [f"embedgrad itself: {NOT_RUN}."]
    compared = [row for row in rows if row.difference is not None]
    if not compared:
        return []
    clear = [row for row in compared if row.holm_p is not None and row.holm_p < SIGNIFICANT]
    losses = [row for row in clear if row.difference and row.difference > 0]
    wins = [row for row in clear if row not in losses]
    ahead = [row for row in compared if row not in clear and row.difference and row.difference > 0]
    rest = [row for row in compared if row not in clear and row not in ahead]
    said = {
        "**embedgrad loses** to {}.": "; ".join(map(_against, losses)),
        "It is behind {}, by less than these rows can show.": "; ".join(map(_against, ahead)),
        "It is significantly more accurate than {}.": _names(wins),
        "It is not behind {}, nor shown to be ahead.": _names(rest),
    }
    nobody = [] if losses or ahead else ["No other method was more accurate."]
    return [*nobody, *(sentence.format(of) for sentence, of in said.items() if of)]


def _against(row: Row) -> str:
    assert row.difference is not None
    assert row.holm_p is not None
    p = show_p(row.holm_p, "Holm's p ")
    return f"{row.arm.title} by {100 * row.difference:.1f} points ({p})"


def _names(rows: Sequence[Row]) -> str:
    return "; ".join(row.arm.title for row in rows)


def instructions_text(finished: Sequence[Finished]) -> str:
    """All hand-written instructions with their validation, over the seeds and folds."""
    cells = [one.cell for one in finished if one.cell.method == "instructions"]
    if not cells:
        return f"Hand-written instructions: {NOT_RUN}."
    values: dict[str, list[float]] = {}
    for cell in cells:
        for tried in cell.texts:
            values.setdefault(tried.text, []).append(tried.accuracy)
    best = [cell.texts[0].text for cell in cells]
    lines = [["instruction", "validation", "chosen"], ["---", "---:", "---:"]]
    for text, accuracies in sorted(values.items(), key=lambda item: -fmean(item[1])):
        chosen = best.count(text)
        lines.append([_escaped(text), percent(fmean(accuracies)), f"{chosen} of {len(cells)}" if chosen else ""])
    head = "Hand-written instructions, the seed prompt among them, and their accuracy in validation:"
    return f"{head}\n\n{markdown_table(lines)}".rstrip()


def searched_text(finished: Sequence[Finished]) -> str:
    found = [tried.text for one in finished if one.cell.method == "text-search" for tried in one.cell.texts]
    if not found:
        return ""
    return "\n".join(["The text search found:", "", *(f"- `{_escaped(text)}`" for text in dict.fromkeys(found))])


def _escaped(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("`", "'")


def curves_text(section: Section, figure: str | None) -> str:
    """Accuracy over training rows, as a figure and as a table."""
    curves = section.curves
    if not curves:
        return ""
    sizes = sorted({size for points in curves.values() for size in points})
    lines = [["training rows", *map(str, sizes)], ["---", *["---:"] * len(sizes)]]
    for title, points in curves.items():
        lines.append([title, *(_mean_and_range(points.get(size)) for size in sizes)])
    picture = f"![accuracy over training rows]({figure})\n\n" if figure else ""
    return f"Learning curves, seeds as a range:\n\n{picture}{markdown_table(lines)}".rstrip()


def _mean_and_range(values: Sequence[float] | None) -> str:
    if not values:
        return NOT_RUN
    spread = f" ({percent(min(values))} to {percent(max(values))})" if len(values) > 1 else ""
    return percent(fmean(values)) + spread
