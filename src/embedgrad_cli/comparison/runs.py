"""Finished runs on disk: found below a folder, read and checked, and pooled where they are folds of one setting.

finished, unfinished = find_runs(Path("outputs/sweep"))
rows = pool_folds([read_run(path) for path in finished])
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.errors import CompareError, UserError
from embedgrad_cli.evaluation.significance import paired_difference_of_counts, wilson_interval
from embedgrad_cli.storage.run_directory import flatten

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one where libyaml is there: ten times as fast
WITHOUT_EFFECT = ("output_dir", "log_level", "mode")
WITHOUT_EFFECT_UNDER = {  # a kind of trust region
    "none": ("trust_region.radius", "trust_region.weight"),
    "ball": ("trust_region.weight",),
    "penalty": ("trust_region.radius",),
}
NUMBER = (int, float)
SIDES = ("baseline", "candidate")
NEEDED = {"task": str, "split": str, "model": str, "num_examples": int}
NEEDED_OF_COMPARISON = {"difference": NUMBER, "ci95": list, "wins": int, "losses": int, "mcnemar_p": NUMBER}
NEEDED_OF_ARM = {"accuracy": NUMBER, "ci95": list, "correct": int}


@dataclass(frozen=True)
class Run:
    """One run, or several folds pooled.

    Args:
        paths: its run directory; of several folds, one each.
        config: dotted keys and their values, without those that change no result. The `template` is one value: its
            name, or its content if it is not one of ours.
        results: the part of results.json that is compared. `test_hash` is always there, `drift` is not, and
            `comparison` is None for an evaluation of a single arm.
    """

    paths: tuple[Path, ...]
    config: dict[str, Any]
    results: dict[str, Any]

    @property
    def compared(self) -> list[str]:
        """The names of baseline and candidate, or of the only arm."""
        comparison = self.results["comparison"]
        return [comparison[side] for side in SIDES] if comparison else list(self.results["arms"])[:1]


def natural(text: object) -> list[Any]:
    """A key to sort by in which `run 2` comes before `run 10`."""
    parts = re.split(r"(\d+)", str(text).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


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


def read_run(path: Path) -> Run:
    """Read config.yaml and results.json of a run directory.

    Raises:
        UserError: one of them cannot be read, or results.json is not what `optimize` and `evaluate` write.
    """
    config = _parse(path / "config.yaml", lambda text: yaml.load(text, LOADER))
    results = _parse(path / "results.json", json.loads)
    wrong = _wrong_in(results)
    if wrong:
        raise UserError(
            f"{path / 'results.json'}: {wrong}. Expected is what `optimize` and `evaluate` write. Take this run out, "
            "or repeat it in another output_dir."
        )
    # Runs of versions that wrote no `test_hash` have the hash of all splits.
    test_hash = results.get("test_hash") or _sha256(results["split"], results.get("split_hash", str(path)))
    return Run((path,), _flat_config(config), {**results, "test_hash": test_hash})


def _parse(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{file} cannot be read: {why}. Copy it again, or take this run out.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no mapping of keys to values. Copy it again, or take this run out.")
    return content


def _wrong_in(results: dict[str, Any]) -> str | None:
    """What is wrong with the content of a results.json, or None."""
    flat, alone = flatten(results), results.get("comparison", "") is None and len(results.get("arms") or {}) == 1
    names = [flat.get(f"comparison.{side}") for side in SIDES]
    arms = [name for name in [*(results.get("arms") or {}), *names] if isinstance(name, str)]
    needed: dict[str, Any] = dict(NEEDED)
    if not alone:
        needed |= {f"comparison.{side}": str for side in SIDES}
        needed |= {f"comparison.{key}": kind for key, kind in NEEDED_OF_COMPARISON.items()}
    needed |= {f"arms.{arm}.{key}": kind for arm in arms for key, kind in NEEDED_OF_ARM.items()}
    for key, kind in needed.items():
        if key not in flat:
            return f"{key} is missing"
        if not isinstance(flat[key], kind) or (kind is list and not _is_interval(flat[key])):
            return f"{key} is {flat[key]!r}"
    if alone:
        return None
    wins, losses, n = flat["comparison.wins"], flat["comparison.losses"], flat["num_examples"]
    first, second = (flat[f"arms.{name}.correct"] for name in names)
    both = second - wins
    if both != first - losses or min(both, wins, losses, n - both - wins - losses, n - 1) < 0:
        return f"the counts contradict each other ({first} and {second} correct of {n}, {wins} wins, {losses} losses)"
    return None


def _is_interval(value: list[Any]) -> bool:
    return len(value) == 2 and all(isinstance(limit, NUMBER) for limit in value)


def _flat_config(config: dict[str, Any]) -> dict[str, Any]:
    template = config.get("template")
    named = {**config, "template": _template_name(template)} if isinstance(template, dict) else config
    flat = {key: _readable(value) for key, value in flatten(named).items() if key not in WITHOUT_EFFECT}
    unused = WITHOUT_EFFECT_UNDER.get(str(flat.get("trust_region.kind")), ())
    return {key: value for key, value in flat.items() if key not in unused}


def _readable(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _template_name(template: dict[str, Any]) -> str:
    """The name of the shipped template that this is; of another one, its content in one line."""
    for name, shipped in _shipped_templates().items():
        if shipped == template:
            return name
    messages = [f"{one.get('role')}: {one.get('content')}" for one in template.get("messages") or []]
    return " · ".join([*messages, f"text: {template.get('text')}"])


@cache
def _shipped_templates() -> dict[str, Any]:
    folder = conf_dir() / "template"
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}
    return {name: yaml.load(file.read_text(encoding="utf-8"), LOADER) for name, file in files.items()}


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
    return run.results["test_hash"]


def _pool(runs: Sequence[Run]) -> Run:
    """Counts are summed, and what is to be said about them is computed from the sums."""
    runs = sorted(runs, key=lambda run: natural(_fold(run)))
    every = [run.results for run in runs]
    first, n = every[0], sum(results["num_examples"] for results in every)
    shared = [name for name in first["arms"] if all(name in results["arms"] for results in every)]
    correct = {name: sum(results["arms"][name]["correct"] for results in every) for name in shared}
    arms = {
        name: {"accuracy": count / n, "ci95": list(wilson_interval(count, n)), "correct": count}
        for name, count in correct.items()
    }
    comparison = _pool_comparison([results["comparison"] for results in every], correct, n)
    folds = {key: [run.config[key] for run in runs] for key in runs[0].config if _is_fold(key)}
    results = {
        **{key: first[key] for key in ("task", "split", "model")},
        "test_hash": _sha256(*sorted(map(_test_hash, runs))),
        "num_examples": n,
        "arms": arms,
        "comparison": comparison,
        "drift": _pool_drift([results.get("drift") or {} for results in every]),
    }
    return Run(tuple(path for run in runs for path in run.paths), {**runs[0].config, **folds}, results)


def _pool_comparison(every: Sequence[dict[str, Any] | None], correct: dict[str, int], n: int) -> dict[str, Any] | None:
    comparisons = [comparison for comparison in every if comparison]
    if not comparisons:
        return None
    wins, losses = (sum(comparison[key] for comparison in comparisons) for key in ("wins", "losses"))
    names = {side: comparisons[0][side] for side in SIDES}
    return {**names, **paired_difference_of_counts(correct[names["candidate"]] - wins, wins, losses, n)}


def _pool_drift(every: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the mean drifts, the sums of the counts; what one run lacks, the pool lacks."""
    sums = {
        key: sum(drift[key] for drift in every)
        for key in ("mean_relative_l2", "nearest_kept", "num_tokens")
        if all(key in drift for drift in every)
    }
    if "mean_relative_l2" in sums:
        sums["mean_relative_l2"] /= len(every)
    return sums


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
