"""The lines of a comparison: runs under flat keys, the seeds of one setting in one line, and which one to take.

lines = pool_seeds([entry_of(run) for run in runs])
judged(lines)  # with p corrected for all lines, and the one that validation chose
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from embedgrad_cli.comparison.runs import Run, sha256_of
from embedgrad_cli.evaluation.significance import holm, ruger
from embedgrad_cli.storage.arm_records import ArmSummary, Comparison
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.results_record import Drift, Results

PARTS = ("config", "validation", "arms", "comparison", "drift", "elsewhere")
ELSEWHERE = ("kl", "first_token_kl", "same_token")
ENGINE = "config.engine"
SEED_SETTINGS = ("config.seed", "config.generation.seed")
P, HOLM_P, CHOSEN = "comparison.mcnemar_p", "comparison.holm_p", "chosen"
VALIDATION = "validation.accuracy"

FlatRecord = Json


@dataclass(frozen=True)
class Entry:
    """A line of a comparison.

    Args:
        paths: the run directories behind it: one, or those of all its folds and seeds.
        record: flat keys, numbers not rounded: those of results.json, `config.KEY` for every setting. Of several seeds
            an accuracy, a difference or a drift is the mean, with its standard deviation beside it as `KEY.sd`.
    """

    paths: tuple[Path, ...]
    record: FlatRecord

    @property
    def test_hash(self) -> str:
        return str(self.record["test_hash"])

    @property
    def candidate(self) -> str:
        """The key of the accuracy that stands for the run: the candidate's, or that of the only arm."""
        arms = (key for key in self.record if key.startswith("arms.") and key.endswith(".accuracy"))
        name = self.record.get("comparison.candidate")
        return f"arms.{name}.accuracy" if name is not None else next(arms)


def entry_of(run: Run) -> Entry:
    """The line of one run, or of its folds."""
    results = run.results
    flat: FlatRecord = {"run": " ".join(path.as_posix() for path in run.paths), "runs": len(run.paths), "seeds": 1}
    flat |= {key: getattr(results, key) for key in ("task", "split", "model", "test_hash", "num_examples")}
    flat |= {f"config.{key}": value for key, value in run.config.items()}
    flat |= {f"validation.{key}": getattr(results.validation, key, None) for key in ("accuracy", "loss", "step")}
    for name, arm in results.arms.items():
        flat |= {f"arms.{name}.{key}": value for key, value in _limits(arm, ("accuracy", "ci95", "correct"))}
    parts = ("baseline", "candidate", "difference", "ci95", "wins", "losses", "mcnemar_p")
    flat |= {f"comparison.{key}": value for key, value in _limits(results.comparison, parts)}
    drift = results.drift or Drift()
    flat |= {f"drift.{key}": getattr(drift, key) for key in ("mean_relative_l2", "nearest_kept", "num_tokens")}
    flat |= {f"elsewhere.{key}": getattr(results.elsewhere, key, None) for key in ELSEWHERE}
    return Entry(run.paths, flat | {"seen_rows": _seen_rows(results)})


def _limits(part: ArmSummary | Comparison | None, keys: Sequence[str]) -> Iterable[tuple[str, Any]]:
    for key in keys if part else ():
        if key == "ci95":
            yield from zip(("ci95.low", "ci95.high"), getattr(part, key), strict=True)
        else:
            yield key, getattr(part, key)


def _seen_rows(results: Results) -> int:
    """How many of the tested rows had trained or selected a prompt (`task.overlap=allow`)."""
    overlap = results.overlap
    return overlap.num_rows if overlap and not overlap.excluded else 0


def keys_of(records: Sequence[FlatRecord]) -> list[str]:
    """The keys of all records, the settings and arms of each beside those of the others."""
    keys = dict.fromkeys(chain.from_iterable(records))
    return sorted(keys, key=lambda key: PARTS.index(key.partition(".")[0]) if "." in key else -1)


def differing_settings(records: Sequence[FlatRecord]) -> list[str]:
    """The keys `config.KEY` whose value is not the same in all records that have one, and the engine's."""
    keys = [key for key in keys_of(records) if key.startswith("config.")]
    # Without an engine it is embedgrad that answered, which is another one.
    values = {key: [one.get(key) for one in records if key in one or key == ENGINE] for key in keys}
    return [key for key in keys if any(value != values[key][0] for value in values[key])]


def pool_seeds(entries: Sequence[Entry]) -> list[Entry]:
    """Make one line of those that differ in a seed alone. Where one seed occurs twice, all stay as they are."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        same = {key: value for key, value in entry.record.items() if key.startswith("config.")}
        same |= {key: entry.record.get(key) for key in ("split", "comparison.baseline", "comparison.candidate")}
        rest = {key: value for key, value in same.items() if key not in SEED_SETTINGS}
        groups.setdefault(repr(sorted(rest.items())), []).append(entry)
    pooled = []
    for group in groups.values():
        distinct = {repr([one.record.get(key) for key in SEED_SETTINGS]) for one in group}
        pooled += [_pool(group)] if 1 < len(group) == len(distinct) else group
    return pooled


def _pool(entries: Sequence[Entry]) -> Entry:
    """Means and standard deviations over seeds; counts and intervals of one test say nothing of several.

    The tests of several seeds may be of the same rows, so their p are combined by Rüger's rule.
    """
    entries = sorted(entries, key=lambda entry: [entry.record.get(key) or 0 for key in SEED_SETTINGS])
    records = [entry.record for entry in entries]
    paths = tuple(path for entry in entries for path in entry.paths)
    flat: FlatRecord = {}
    for key in keys_of(records):
        values: list[Any] = [one.get(key) for one in records]
        if key in SEED_SETTINGS:
            flat[key] = values if len(set(values)) > 1 else values[0]
        elif key.startswith("config.") or all(value == values[0] for value in values):
            flat[key] = values[0]
        elif _is_averaged(key) and None not in values:
            flat[key] = fmean(values)
    for key in [key for key in flat if _is_averaged(key) and flat[key] is not None]:
        flat[f"{key}.sd"] = stdev(one[key] for one in records)
    flat |= {"run": " ".join(path.as_posix() for path in paths), "runs": len(paths), "seeds": len(entries)}
    flat["num_examples"] = min(one["num_examples"] for one in records)
    flat["seen_rows"] = max(one["seen_rows"] for one in records)
    tests = sorted({entry.test_hash for entry in entries})
    flat["test_hash"] = tests[0] if len(tests) == 1 else sha256_of(*tests)
    flat["test_sets"] = len(tests)
    if P in records[0]:
        flat[P] = ruger([one[P] for one in records])
    return Entry(paths, flat)


def _is_averaged(key: str) -> bool:
    means = (VALIDATION, "validation.loss", "comparison.difference", "drift.mean_relative_l2", "drift.nearest_kept")
    return key in means or key.startswith("elsewhere.") or (key.startswith("arms.") and key.endswith(".accuracy"))


def by_test_set(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The lines of each test set."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.test_hash, []).append(entry)
    return list(groups.values())


def judged(entries: Sequence[Entry]) -> list[Entry]:
    """The lines of one test set, with what depends on all of them: Holm's p, and which one validation chose.

    The chosen one (`chosen`) has the highest validation accuracy, then the lowest loss, as within a run; None is chosen
    where a line has no validation, as an evaluation without an artifact.
    """
    corrected = iter(holm([entry.record[P] for entry in entries if P in entry.record]))
    best = None
    if len(entries) > 1 and all(entry.record.get(VALIDATION) is not None for entry in entries):
        best = max(entries, key=by_validation)
    return [
        replace(
            entry,
            record=entry.record
            | ({HOLM_P: next(corrected)} if P in entry.record else {})
            | {CHOSEN: entry is best if best else None},
        )
        for entry in entries
    ]


def by_validation(entry: Entry) -> tuple[float, float]:
    """Higher is better: accuracy, then loss."""
    loss = entry.record.get("validation.loss")
    return entry.record[VALIDATION], -math.inf if loss is None else -loss
