"""Finished runs on disk: found below a folder, read and checked, and pooled where they are folds of one setting.

finished, unfinished = find_runs(Path("outputs/sweep"))
rows = pool_folds([read_run(path) for path in finished])
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from embedgrad_cli.config.schema import WITHOUT_EFFECT
from embedgrad_cli.config.spelling import natural
from embedgrad_cli.errors import CompareError, UserError
from embedgrad_cli.evaluation.significance import paired_difference_of_counts, wilson_interval
from embedgrad_cli.storage.arm_records import ArmSummary, Comparison
from embedgrad_cli.storage.record import MEND, Json
from embedgrad_cli.storage.results_record import Drift, Elsewhere, Results, Validation
from embedgrad_cli.storage.run_directory import flatten, is_among, read_settings

SHOWN_RUNS = 4
WITHOUT_EFFECT_UNDER = {  # a kind of trust region
    "none": ("trust_region.radius", "trust_region.weight"),
    "ball": ("trust_region.weight",),
    "penalty": ("trust_region.radius",),
}


@dataclass(frozen=True)
class Run:
    """One run, or several folds pooled.

    Args:
        paths: its run directory; of several folds, one each.
        config: dotted keys and their values, without those that change no result. The `template` is one value: its
            content in one line, or its name; see `name_templates`.
        results: of several folds, what is compared. `test_hash` is always there.
    """

    paths: tuple[Path, ...]
    config: Json
    results: Results

    @property
    def compared(self) -> list[str]:
        """The names of baseline and candidate, or of the only arm."""
        comparison = self.results.comparison
        return [comparison.baseline, comparison.candidate] if comparison else list(self.results.arms)[:1]


def find_runs(folder: Path) -> tuple[list[Path], list[Path]]:
    """The run directories at or below a folder, in natural order. Nothing is looked for below a finished one.

    Returns: the finished ones, and those that have a config.yaml and no results.json yet.
    """
    finished, unfinished = [], []
    for name, below, files in os.walk(folder):
        below[:] = sorted((one for one in below if not one.startswith(".")), key=natural)
        if "config.yaml" in files and "results.json" in files:
            finished.append(Path(name))
            below.clear()
        elif "config.yaml" in files:
            unfinished.append(Path(name))
    return finished, unfinished


def read_runs(folders: Sequence[str]) -> tuple[list[Run], list[Path], list[str]]:
    """The finished runs of all folders, each once; the unfinished ones; and every problem."""
    finished, unfinished = dict[Path, Path](), dict[Path, Path]()
    problems, runs = [], []
    for folder in map(Path, folders):
        if not folder.is_dir():
            what = "this is a file; give its folder" if folder.exists() else "there is no such folder"
            problems.append(f"{folder}: {what}.")
            continue
        done, begun = find_runs(folder)
        for path in done:
            finished.setdefault(path.resolve(), path)
        for path in begun:
            unfinished.setdefault(path.resolve(), path)
        if not done and not begun:
            problems.append(
                f"{folder}: no run directory (with config.yaml and results.json) is here or below. Give the output_dir "
                "of a run, or a folder that holds some."
            )
    for path in finished.values():
        try:
            runs.append(read_run(path))
        except UserError as error:
            problems.append(str(error))
    if unfinished and not finished:
        problems.append(f"no run is finished: {few(list(unfinished.values()))} have no results.json yet.")
    return runs, list(unfinished.values()), problems


def few(paths: Sequence[Path]) -> str:
    """The first of several paths, and how many more there are."""
    more = len(paths) - SHOWN_RUNS
    return ", ".join(map(str, paths[:SHOWN_RUNS])) + (f" and {more} more" if more > 0 else "")


def read_run(path: Path) -> Run:
    """Read config.yaml and results.json of a run directory.

    Raises:
        UserError: one of them cannot be read, or is not what `optimize` and `evaluate` write.
    """
    config, results = read_settings(path / "config.yaml"), Results.read(path / "results.json")
    wrong = _contradiction(results)
    if wrong:
        raise UserError(
            f"{path / 'results.json'}: {wrong}. Expected is what `optimize` and `evaluate` write. Take this run out, "
            "or repeat it in another output_dir."
        )
    if not _has_messages(config):
        raise UserError(
            f"{path / 'config.yaml'}: template.messages is no list of messages, each with its role and content, which "
            f"`optimize` and `evaluate` write. {MEND}"
        )
    # Runs of versions that wrote no `test_hash` have the hash of all splits.
    test_hash = results.test_hash or sha256_of(results.split, results.split_hash or str(path))
    return Run((path,), _flat_config(config), replace(results, test_hash=test_hash))


def _contradiction(results: Results) -> str | None:
    """In what the counts of the comparison contradict those of its arms, or None."""
    comparison, n = results.comparison, results.num_examples
    if comparison is None:
        return None if len(results.arms) == 1 else f"comparison is null, but there are {len(results.arms)} arms"
    missing = [name for name in (comparison.baseline, comparison.candidate) if name not in results.arms]
    if missing:
        return f"the arm {missing[0]} is compared and is not among the arms"
    wins, losses = comparison.wins, comparison.losses
    first, second = results.arms[comparison.baseline].correct, results.arms[comparison.candidate].correct
    both = second - wins
    if both != first - losses or min(both, wins, losses, n - both - wins - losses, n - 1) < 0:
        return f"the counts contradict each other ({first} and {second} correct of {n}, {wins} wins, {losses} losses)"
    return None


def _has_messages(config: Json) -> bool:
    template = config.get("template")
    messages = template.get("messages") if isinstance(template, dict) else None
    return messages is None or (isinstance(messages, list) and all(isinstance(one, dict) for one in messages))


def _flat_config(config: Json) -> Json:
    template = config.get("template")
    as_one = {**config, "template": _in_one_line(template)} if isinstance(template, dict) else config
    flat = {key: _readable(value) for key, value in flatten(as_one).items() if not is_among(key, WITHOUT_EFFECT)}
    unused = WITHOUT_EFFECT_UNDER.get(str(flat.get("trust_region.kind")), ())
    # What a version did not know is what null says today.
    return {key: value for key, value in flat.items() if key not in unused and value is not None}


def _readable(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _in_one_line(template: Json) -> str:
    messages = [f"{message.get('role')}: {message.get('content')}" for message in template.get("messages") or []]
    return " · ".join([*messages, f"text: {template.get('text')}"])


def name_templates(runs: Sequence[Run]) -> list[Run]:
    """The runs with the names of the shipped templates in place of their content, where runs differ in it."""
    if len({run.config.get("template") for run in runs}) <= 1:
        return list(runs)
    from embedgrad_cli.config.compose import Composer  # Hydra, which most comparisons do without

    composer = Composer()
    names = {
        _in_one_line(composer.settings("optimize", [f"template={name}"])["template"]): name
        for name in composer.groups()["template"]
    }
    return [
        replace(run, config={**run.config, "template": names.get(template, template)})
        if (template := run.config.get("template"))
        else run
        for run in runs
    ]


def pool_folds(runs: Sequence[Run]) -> list[Run]:
    """Make one run of those whose configs differ in the fold alone; the others stay as they are.

    Raises:
        CompareError: a fold is there twice, or two folds were tested on the same rows, so rows would count twice.
    """
    groups: dict[object, list[Run]] = {}
    for number, run in enumerate(runs):
        rest = {key: value for key, value in run.config.items() if not _is_fold(key)}
        setting = repr((sorted(rest.items()), run.compared))
        groups.setdefault(setting if _fold(run) else number, []).append(run)
    problems = [problem for group in groups.values() for problem in _counted_twice(group)]
    if problems:
        raise CompareError(problems)
    return [_pool(group) if len(group) > 1 else group[0] for group in groups.values()]


def _counted_twice(group: Sequence[Run]) -> list[str]:
    names = ", ".join(str(run.paths[0]) for run in group)
    if len({str(_fold(run)) for run in group}) < len(group):
        return [f"{names}: these runs of one setting hold a fold twice. Leave the superfluous runs out."]
    if len({_test_hash(run) for run in group}) < len(group):
        return [f"{names}: these folds of one setting were tested on the same rows. Compare one of them."]
    return []


def _is_fold(key: str) -> bool:
    """`task.fold`, or a key of that name deeper in the task."""
    return key.startswith("task.") and key.endswith(".fold")


def _fold(run: Run) -> list[Any]:
    """The number of the fold in a list, which is empty for a run without folds."""
    return [value for key, value in run.config.items() if _is_fold(key) and value is not None]


def _test_hash(run: Run) -> str:
    return str(run.results.test_hash)


def _pool(runs: Sequence[Run]) -> Run:
    """Counts are summed, and what is to be said about them is computed from the sums."""
    runs = sorted(runs, key=lambda run: natural(_fold(run)))
    pooled = [run.results for run in runs]
    first, n = pooled[0], sum(results.num_examples for results in pooled)
    shared = [name for name in first.arms if all(name in results.arms for results in pooled)]
    correct = {name: sum(results.arms[name].correct for results in pooled) for name in shared}
    folds = {key: [run.config[key] for run in runs] for key in runs[0].config if _is_fold(key)}
    results = Results(
        task=first.task,
        split=first.split,
        model=first.model,
        test_hash=sha256_of(*sorted(map(_test_hash, runs))),
        num_examples=n,
        arms={
            name: ArmSummary(accuracy=count / n, ci95=wilson_interval(count, n), correct=count)
            for name, count in correct.items()
        },
        comparison=_pool_comparison([results.comparison for results in pooled], correct, n),
        validation=_pool_validation([results.validation for results in pooled]),
        drift=_pool_drift([results.drift or Drift() for results in pooled]),
        elsewhere=_pool_elsewhere([results.elsewhere for results in pooled]),
    )
    return Run(tuple(path for run in runs for path in run.paths), {**runs[0].config, **folds}, results)


def _pool_comparison(pooled: Sequence[Comparison | None], correct: dict[str, int], n: int) -> Comparison | None:
    comparisons = [comparison for comparison in pooled if comparison]
    if not comparisons:
        return None
    wins, losses = (sum(getattr(comparison, key) for comparison in comparisons) for key in ("wins", "losses"))
    first = comparisons[0]
    paired = paired_difference_of_counts(correct[first.candidate] - wins, wins, losses, n)
    return Comparison(baseline=first.baseline, candidate=first.candidate, **vars(paired))


def _pool_validation(pooled: Sequence[Validation | None]) -> Validation | None:
    """The means over the folds, each of which chose its own prompt; what one fold lacks, the pool lacks."""
    found = [validation for validation in pooled if validation]
    if len(found) < len(pooled):
        return None
    accuracy, loss = fmean(one.accuracy for one in found), fmean(one.loss for one in found)
    return Validation(accuracy=accuracy, loss=loss, step=max(one.step for one in found))


def _pool_drift(drifts: Sequence[Drift]) -> Drift:
    """The mean of the mean drifts, the sums of the counts; what one run lacks, the pool lacks."""

    def total(key: str) -> Any:
        values = [getattr(drift, key) for drift in drifts]
        return None if None in values else sum(values)

    mean = total("mean_relative_l2")
    return Drift(
        mean_relative_l2=None if mean is None else mean / len(drifts),
        nearest_kept=total("nearest_kept"),
        num_tokens=total("num_tokens"),
    )


def _pool_elsewhere(pooled: Sequence[Elsewhere | None]) -> Elsewhere | None:
    """The means over the folds, which were all asked the same; what one fold lacks, the pool lacks."""
    found = [elsewhere for elsewhere in pooled if elsewhere]
    if len(found) < len(pooled):
        return None
    requests = [name for name in found[0].by_request if all(name in one.by_request for one in found)]
    return replace(
        found[0],
        kl=fmean(one.kl for one in found),
        first_token_kl=fmean(one.first_token_kl for one in found),
        same_token=fmean(one.same_token for one in found),
        by_request={name: fmean(one.by_request[name] for one in found) for name in requests},
    )


def sha256_of(*texts: str) -> str:
    """One name for several test sets."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
