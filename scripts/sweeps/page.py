"""The page of a sweep as Markdown: per model and task a table of settings, and which are near the best everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from embedgrad_cli.config.spelling import one_line
from methods.table import markdown_table, percent

from .settings import NEAR, Section, Setting, short

INTRODUCTION = """# Settings, measured

What the settings of `embedgrad optimize` are worth, by model and task. This page is written by

```bash
{command}
```

from finished runs; nothing in it is typed by hand. The best setting is the one with the highest mean validation
accuracy among those with the most seeds. *To the best* is the difference of the validation means on the seeds that both
have, since every seed holds out other validation rows. The test figures stand beside and choose nothing.

- *Validation*, *test*: mean over the seeds, then each in the order of the column *seeds*; of a test also the range.
- *Best step*: after which validation chose the vectors, by seed. *Training s*: all steps, without loading, validation
  and test, the mean of the seeds; runs that shared their processor with others took longer than alone.
- *Drift*: a vector's mean distance from its seed token, relative to that token's length.
- *Pictures*: over the steps, thick lines are means of seeds and thin ones the seeds; where the seed prompt is far less
  accurate, they begin below the picture. The loss is that of the gold targets, under any objective.
"""


def page(
    sections: Sequence[Section],
    left_out: Sequence[str],
    command: str,
    figures_of: Callable[[Section], dict[str, str]],
) -> str:
    """The page as Markdown. `figures_of` draws a section's pictures and names their files, by what they show."""
    parts = [INTRODUCTION.format(command=command), across(sections)]
    parts += [section_text(section, figures_of(section)) for section in sections]
    parts += ["Left out: " + " ".join(left_out) + "\n"] if left_out else []
    return "\n".join(part for part in parts if part)


def across(sections: Sequence[Section]) -> str:
    """How far settings that were run on several models or tasks are from the best of each.

    What is the same within every section belongs to its model or task and names no setting.
    """
    keys = sorted({key for section in sections for key in section.keys})
    known = {key for section in sections for setting in section.settings for key in setting.values}
    gaps: dict[str, dict[int, float]] = {}
    for number, section in enumerate(sections):
        for setting in section.settings:
            gap = setting.gap(section.best)
            if gap is not None:
                gaps.setdefault(setting.label(keys, known), {})[number] = gap
    lines = []
    for label, of in sorted(gaps.items(), key=lambda item: (-len(item[1]), -min(item[1].values()))):
        if len(of) > 1:
            near = sum(gap >= -NEAR for gap in of.values())
            lines.append([label, *(points(of.get(number)) for number in range(len(sections))), f"{near} of {len(of)}"])
    if not lines:
        return ""
    titles = [f"{section.title}, n = {section.num_test}" for section in sections]
    heads = [["setting", *titles, "within 2 points"], ["---", *["---:"] * (len(titles) + 1)]]
    return "## Across models and tasks\n\nTo the best in validation, in points.\n\n" + markdown_table([*heads, *lines])


def section_text(section: Section, figures: dict[str, str]) -> str:
    keys = section.keys
    names = [short(key, section.best.values) for key in keys]
    heads = [*names, "seeds", "validation", "to the best", "test", "test by seed", "best step", "training s", "drift"]
    numeric = [all(isinstance(one.values.get(key, 0), int | float) for one in section.settings) for key in keys]
    rules = ["---:" if is_number else "---" for is_number in [*numeric, *[True] * (len(heads) - len(keys))]]
    lines = [heads, rules, *(cells_of(section, setting) for setting in section.settings)]
    parts = [
        f"## {section.title}",
        given(section),
        markdown_table(lines).rstrip(),
        verdict(section),
        *(f"![{shown}]({name})" for shown, name in figures.items()),
    ]
    return "\n\n".join(parts) + "\n"


def given(section: Section) -> str:
    """The rows, what stands against the optimised prompts, and the settings that all runs share."""
    results = [one.run.results for setting in section.settings for one in setting.trained]
    arms = {
        name: fmean(one.arms[name].accuracy for one in results) for name in ("none", "seed") if name in results[0].arms
    }
    against = ", ".join(f"`{name}` {percent(accuracy)}" for name, accuracy in arms.items())
    rows = f"{section.num_validation} validation rows, " if section.num_validation else ""
    shared = " ".join(
        f"{key}={one_line(value)}" for key, value in section.shared.items() if not key.startswith("task.")
    )
    return f"{rows}{section.num_test} test rows; in the test {against}. All runs: `{shared}`."


def cells_of(section: Section, setting: Setting) -> list[str]:
    trained = setting.trained
    drifts = [one.run.results.drift.mean_relative_l2 for one in trained if one.run.results.drift]
    known = [drift for drift in drifts if drift is not None]
    tests = setting.tests
    spread = f" ({100 * min(tests):.1f} to {100 * max(tests):.1f})" if len(tests) > 1 else ""
    return [
        *(one_line(setting.values.get(key, "")).replace("|", "\\|") for key in section.keys),
        ", ".join(map(str, setting.by_seed)),
        percent(setting.validation) + (f": {by_seed(setting.validations)}" if len(trained) > 1 else ""),
        "best" if setting is section.best else points(setting.gap(section.best)),
        f"{percent(fmean(tests))}{spread}",
        by_seed(tests),
        ", ".join(str(one.validation.step) for one in trained),
        f"{fmean(one.seconds for one in trained):.0f}",
        f"{fmean(known):.2f}" if known else "",
    ]


def by_seed(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values)


def points(gap: float | None) -> str:
    return "" if gap is None else f"{100 * gap:+.1f}"


def verdict(section: Section) -> str:
    """Which setting validation chose, which are near it, and what its rows can tell apart."""
    best = section.best
    if len(section.settings) == 1:
        return "One setting, so there is nothing to choose."
    near = [one for one in section.settings[1:] if (gap := one.gap(best)) is not None and gap >= -NEAR]
    seeds = f"seed{'s' * (len(best.by_seed) > 1)} {', '.join(map(str, best.by_seed))}"
    said = [f"The best by validation: **{section.label(best)}** ({percent(best.validation)}, {seeds})."]
    said.append(f"Within 2 points of it: {'; '.join(map(section.label, near)) or 'none'}.")
    if section.num_validation:
        share = best.validation
        error = math.sqrt(share * (1 - share) / section.num_validation)
        said.append(
            f"One validation of {section.num_validation} rows has a standard error of {100 * error:.1f} points."
        )
    return " ".join(said)
