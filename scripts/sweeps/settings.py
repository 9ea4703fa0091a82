"""Finished runs of `embedgrad optimize` by model, task and setting: the seeds of a setting, and how settings compare.

Seeds hold out other validation rows, and some are easier than others. So settings are compared on the seeds that they
share, and the best is one of those that have the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from embedgrad_cli.comparison.runs import Run, find_runs, name_templates, pool_folds, read_run
from embedgrad_cli.comparison.sections import heading
from embedgrad_cli.config.spelling import natural, one_line
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.results_record import Validation

NEAR = 0.02  # of the best mean, as a fraction of 1
# What changes no number, is the section's, or is shown by itself.
NOT_A_SETTING = (
    *("seed", "model.path", "model.revision", "task.data_dir", "task.hub", "task.fold", "evaluation"),
    *("train.micro_batch_size", "train.cache_queries", "train.checkpoint_activations", "train.checkpoint_every"),
)


@dataclass(frozen=True)
class Course:
    """What `metrics.jsonl` of one run says: its validations, and the seconds of its steps."""

    validations: list[ValidationMetrics]
    seconds: float

    @classmethod
    def read(cls, file: Path) -> Course:
        """Raises `UserError`: the file is damaged."""
        lines = file.read_text(encoding="utf-8").splitlines()
        validated = [ValidationMetrics.parse(line, str(file)) for line in lines if "validation_loss" in line]
        steps = [StepMetrics.parse(line, str(file)) for line in lines if "grad_norm" in line]
        return cls(validated, sum(step.seconds for step in steps))


@dataclass(frozen=True)
class Trained:
    """A run of one seed, its folds pooled, with the course of each."""

    run: Run
    courses: list[Course]

    @property
    def seed(self) -> int:
        return self.run.config["seed"]

    @property
    def validation(self) -> Validation:
        assert self.run.results.validation is not None
        return self.run.results.validation

    @property
    def test(self) -> float:
        return self.run.results.primary_accuracy

    @property
    def seconds(self) -> float:
        return sum(course.seconds for course in self.courses)

    @property
    def settings(self) -> Json:
        """By dotted key. What is nothing (null, 0, false) is as if it were not there; precision is what it came to."""
        config, digests = self.run.config, self.run.results.digests
        if digests and digests.dtype:
            config = config | {"model.dtype": digests.dtype}
        return {key: value for key, value in config.items() if value and not _is_other(key)}


def _is_other(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in NOT_A_SETTING)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone, by seed."""

    values: Json
    by_seed: dict[int, Trained]

    @property
    def trained(self) -> list[Trained]:
        return list(self.by_seed.values())

    @property
    def validations(self) -> list[float]:
        return [one.validation.accuracy for one in self.trained]

    @property
    def validation(self) -> float:
        return fmean(self.validations)

    @property
    def tests(self) -> list[float]:
        return [one.test for one in self.trained]

    @property
    def courses(self) -> list[Course]:
        return [course for one in self.trained for course in one.courses]

    def gap(self, best: Setting) -> float | None:
        """Validation accuracy minus the best's, on the seeds that both have; None: they share none."""
        shared = [seed for seed in self.by_seed if seed in best.by_seed]
        if not shared:
            return None
        return fmean(self.by_seed[s].validation.accuracy - best.by_seed[s].validation.accuracy for s in shared)

    def label(self, keys: Sequence[str], every: Iterable[str]) -> str:
        """Its values of these keys: "choice, steps 100". Words stand for themselves."""
        named = [(short(key, every), self.values[key]) for key in keys if key in self.values]
        said = [value if isinstance(value, str) else f"{name} {one_line(value)}" for name, value in named]
        return ", ".join(said) or "the only one"


@dataclass(frozen=True)
class Section:
    """All settings of one model, task and test; the best in validation is first."""

    model: str
    task: str
    num_validation: int | None  # of the first run
    num_test: int
    settings: list[Setting]

    @property
    def title(self) -> str:
        return f"{self.model}, {self.task}"

    @property
    def best(self) -> Setting:
        return self.settings[0]

    @cached_property
    def keys(self) -> list[str]:
        """Of the settings that are not the same in all runs."""
        return differing([setting.values for setting in self.settings])

    def label(self, setting: Setting) -> str:
        return setting.label(self.keys, setting.values)

    @property
    def shared(self) -> Json:
        return {key: value for key, value in self.best.values.items() if key not in self.keys}


def short(key: str, keys: Iterable[str]) -> str:
    """As `embedgrad compare` calls a setting: by its last name, unless another shares it."""
    return heading(f"config.{key}", [f"config.{other}" for other in keys])


def differing(values: Sequence[Json]) -> list[str]:
    """The keys that have not the same value everywhere, in their order."""
    keys = sorted({key for one in values for key in one})
    return [key for key in keys if any(one.get(key) != values[0].get(key) for one in values)]


def read_sections(folders: Sequence[Path], titles: dict[str, str]) -> tuple[list[Section], list[str]]:
    """The finished optimisations at or below these folders.

    Args:
        titles: what a model is called, by the last name of its path.

    Returns: sections, and a sentence on each run that is left out.

    Raises:
        UserError: a run is damaged, or a setting has a seed twice.
    """
    groups: dict[tuple[object, ...], list[Run]] = {}
    left_out = []
    for finished, unfinished in map(find_runs, folders):
        left_out += [f"`{path.name}` is not finished." for path in unfinished]
        for run in map(read_run, finished):
            if run.results.validation is None or run.results.steps is None:
                left_out.append(f"`{run.paths[0].name}` is no optimisation.")
                continue
            rows = (run.config.get(f"task.split.{key}") for key in ("num_validation", "num_test", "folds"))
            groups.setdefault((_title(run, titles), run.results.task, *rows), []).append(run)
    ordered = sorted(groups.items(), key=lambda group: natural(group[0]))
    return [_section(_title(runs[0], titles), runs) for _, runs in ordered], left_out


def _title(run: Run, titles: dict[str, str]) -> str:
    name = Path(run.results.model).name
    return titles.get(name, name)


def _section(model: str, runs: Sequence[Run]) -> Section:
    counts = [run.results.data.counts for run in runs if run.results.data and run.results.data.counts]
    pooled = pool_folds(name_templates(runs))
    settings = _by_validation(_settings_of(pooled))
    validated = counts[0]["validation"] if counts else None
    return Section(model, runs[0].results.task, validated, pooled[0].results.num_examples, settings)


def _settings_of(runs: Sequence[Run]) -> list[Setting]:
    groups: dict[str, Setting] = {}
    for run in runs:
        one = Trained(run, [Course.read(path / "metrics.jsonl") for path in run.paths])
        group = groups.setdefault(repr(sorted(one.settings.items())), Setting(one.settings, {}))
        if one.seed in group.by_seed:
            twice = " and ".join(str(other.run.paths[0]) for other in (group.by_seed[one.seed], one))
            raise UserError(f"{twice} are runs of one setting and one seed. Leave one of them out.")
        group.by_seed[one.seed] = one
    return [replace(group, by_seed=dict(sorted(group.by_seed.items()))) for group in groups.values()]


def _by_validation(settings: Sequence[Setting]) -> list[Setting]:
    """The best first; those that share no seed with it last."""
    most = max(len(setting.by_seed) for setting in settings)
    best = max((one for one in settings if len(one.by_seed) == most), key=lambda setting: setting.validation)

    def rank(setting: Setting) -> tuple[bool, bool, float]:
        gap = setting.gap(best)
        return setting is not best, gap is None, -(gap or 0.0)

    return sorted(settings, key=rank)
