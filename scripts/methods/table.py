"""The cells of one model, task and training size as the rows of a table: folds pooled, seeds averaged.

Folds partition the rows, so their answers are pooled before anything is computed. Seeds may answer the same rows, so
accuracies, differences and seconds are means; an interval is that of one test of this size at the mean counts; and the
p of several seeds are combined by Rüger's rule, as `embedgrad compare` does. Holm's p is for all rows of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

from embedgrad_cli.config.schema import OBJECTIVES
from embedgrad_cli.evaluation.significance import (
    holm,
    paired_difference,
    paired_difference_of_counts,
    ruger,
    show_p,
    wilson_interval,
)

from .records import CellRecord, Finished, Trial
from .settings import compose, variant_of

TITLES = {
    "none": "no prompt",
    "bare": "no prompt, no chat template",
    "seed": "seed prompt",
    "instructions": "best of the hand-written instructions",
    "embedgrad": "embedgrad",
    "embedgrad-free": "embedgrad, no trust region",
    "peft-text": "PEFT prompt tuning, TEXT",
    "peft-text-20": "PEFT prompt tuning, TEXT, 20 tokens",
    "peft-random": "PEFT prompt tuning, RANDOM",
    "peft-random-20": "PEFT prompt tuning, RANDOM, 20 tokens",
    "peft-vocab": "PEFT prompt tuning, SAMPLE_VOCAB",
    "lora": "LoRA r=8",
    "text-search": "text search",
}
REFERENCE = "embedgrad"
HEADS = [
    *("method", "learning rate", "trained", "accuracy", "95 % interval", "vs embedgrad", "p", "Holm's p"),
    *("training s", "all s", "peak MB"),
]
NOT_RUN = "not run"
NOT_IN_THE_TABLE = "peft-vocab"  # unless it was run


@dataclass(frozen=True)
class Arm:
    """A method on one training size: the finished cells of each seed, all folds of it."""

    method: str
    variant: str | None
    by_seed: dict[int, list[CellRecord]]

    @property
    def title(self) -> str:
        return TITLES[self.method] + (f" ({self.variant})" if self.variant else "")

    @property
    def cells(self) -> list[CellRecord]:
        return list(chain.from_iterable(self.by_seed.values()))

    @property
    def chosen(self) -> list[Trial]:
        return [cell.chosen for cell in self.cells if cell.chosen]

    def correct(self, seed: int) -> dict[str, bool]:
        """By the id of the row, over all folds."""
        return {row: right for cell in self.by_seed[seed] for row, right in cell.correct.items()}


@dataclass(frozen=True)
class Row:
    """What the table says of one arm. A difference is the arm's accuracy minus the reference's."""

    arm: Arm
    accuracies: list[float]
    size: int
    interval: tuple[float, float]
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    p: float | None = None
    holm_p: float | None = None

    @property
    def accuracy(self) -> float:
        return fmean(self.accuracies)


def arms_of(finished: Sequence[Finished]) -> list[Arm]:
    """The arms of one series and size, in the order of `TITLES`. A seed with folds missing is left out."""
    groups: dict[tuple[str, str | None], dict[int, list[CellRecord]]] = {}
    for one in finished:
        seeds = groups.setdefault((one.cell.method, one.cell.variant), {})
        seeds.setdefault(one.problem.seed, []).append(one.cell)
    arms = []
    for (method, variant), seeds in groups.items():
        whole = {seed: cells for seed, cells in sorted(seeds.items()) if len(cells) == folds_of(finished[0])}
        if whole:
            arms.append(Arm(method, variant, whole))
    return sorted(arms, key=lambda arm: list(TITLES).index(arm.method))


def folds_of(one: Finished) -> int:
    """How many folds a seed has; 1 where none are cut."""
    return one.series.settings["task"]["split"].get("folds", 1)


def rows_of(arms: Sequence[Arm], kind: str) -> list[Row]:
    """A row per arm, compared with embedgrad under the product's defaults on the same rows of the same seeds.

    `kind` is the task's, on which defaults may depend.
    """
    ours = [arm for arm in arms if arm.method == REFERENCE]
    if len(ours) > 1:
        config = compose([])
        objective = replace(config.objective, name=OBJECTIVES[kind])
        default = variant_of(replace(config, objective=objective))
        ours.sort(key=lambda arm: arm.variant != default)
    reference = ours[0] if ours else None
    rows = [_row(arm, reference) for arm in arms]
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, holm_p=next(corrected)) for row in rows]


def _row(arm: Arm, reference: Arm | None) -> Row:
    correct = {seed: arm.correct(seed) for seed in arm.by_seed}
    accuracies = [fmean(answers.values()) for answers in correct.values()]
    size = min(map(len, correct.values()))
    row = Row(arm, accuracies, size, wilson_interval(round(fmean(accuracies) * size), size))
    shared = [seed for seed in arm.by_seed if reference and seed in reference.by_seed]
    if reference is None or reference is arm or not shared:
        return row
    pairs, both = [], []
    for seed in shared:
        ours, theirs = reference.correct(seed), correct[seed]
        ids = [row_id for row_id in theirs if row_id in ours]
        pairs.append(paired_difference([ours[i] for i in ids], [theirs[i] for i in ids]))
        both.append(sum(ours[i] and theirs[i] for i in ids))
    wins, losses = (round(fmean(values)) for values in ([q.wins for q in pairs], [q.losses for q in pairs]))
    typical = paired_difference_of_counts(min(round(fmean(both)), size - wins - losses), wins, losses, size)
    return replace(
        row,
        difference=fmean(pair.difference for pair in pairs),
        difference_interval=typical.ci95,
        p=ruger([pair.mcnemar_p for pair in pairs]),
    )


def cells_of(row: Row) -> list[str]:
    """A row of the table as text, in the order of `HEADS`."""
    arm, seeds = row.arm, len(row.arm.by_seed)
    low, high = row.interval
    accuracy = percent(row.accuracy)
    if seeds > 1:
        accuracy += f" ({percent(min(row.accuracies))} to {percent(max(row.accuracies))}, {seeds} seeds)"
    difference = ""
    if row.difference is not None and row.difference_interval is not None:
        least, most = (100 * limit for limit in row.difference_interval)
        difference = f"{100 * row.difference:+.1f} points ({least:+.1f} to {most:+.1f})"
    return [
        arm.title,
        rates_of(arm),
        f"{arm.chosen[0].parameters:,}" if arm.chosen else "0",
        accuracy,
        f"{percent(low)} to {percent(high)}",
        difference,
        "" if row.p is None else show_p(row.p),
        "" if row.holm_p is None else show_p(row.holm_p),
        f"{sum(trial.seconds for trial in arm.chosen) / seeds:.0f}" if arm.chosen else "",
        f"{sum(cell.seconds for cell in arm.cells) / seeds:.0f}",
        f"{max(trial.peak_bytes or 0 for trial in arm.chosen) / 1e6:,.0f}" if arm.chosen else "",
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def rates_of(arm: Arm) -> str:
    """The chosen rates, and of how many."""
    chosen = sorted({trial.lr for trial in arm.chosen if trial.lr is not None})
    if not chosen:
        return ""
    tried, at_end = arm.cells[0].rates, any(cell.at_end for cell in arm.cells)
    return f"{', '.join(f'{lr:g}' for lr in chosen)}{'*' * at_end} of {len(tried)}"


def markdown(rows: Sequence[Row], with_missing: bool = False) -> str:
    """The table. `with_missing`: methods that were not run have a row that says so."""
    lines = [(row.arm.method, cells_of(row)) for row in rows]
    if with_missing:
        missing = set(TITLES) - {row.arm.method for row in rows} - {NOT_IN_THE_TABLE}
        lines += [(name, [TITLES[name], *[""] * 2, NOT_RUN, *[""] * (len(HEADS) - 4)]) for name in missing]
    ordered = [line for _, line in sorted(lines, key=lambda line: list(TITLES).index(line[0]))]
    return markdown_table([HEADS, ["---"] + ["---:"] * (len(HEADS) - 1), *ordered])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cell.replace('*', chr(92) + '*') for cell in line)} |\n" for line in lines)
