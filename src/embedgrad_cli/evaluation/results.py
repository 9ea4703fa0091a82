"""What outcomes add up to: `results.json` and the lines of `samples.jsonl`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedgrad_cli.config.arm_spec import choose_baseline
from embedgrad_cli.config.schema import TaskConfig
from embedgrad_cli.evaluation.answers import Answer
from embedgrad_cli.evaluation.outcomes import Outcome, majority
from embedgrad_cli.evaluation.significance import (
    Z95,
    bootstrap_interval,
    clustered_mean,
    holm,
    minimum_detectable_difference,
    paired_difference,
    pass_at_k,
    wilson_interval,
)
from embedgrad_cli.tasks.load import Row, Splits, rows_hash

Outcomes = Mapping[str, Sequence[Sequence[Outcome]]]  # by arm: [rows][samples]


def results_of(
    outcomes: Outcomes,
    rows: Sequence[Row],
    task: TaskConfig,
    splits: Splits,
    *,
    split: str,
    num_skipped: int,
    model: str,
    baseline: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    breakdown: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The part of `results.json` that all commands share. Accuracies and differences are fractions of 1.

    Args:
        pairs: of arms to compare, the first of each being the baseline; None: every arm with `baseline`.
    """
    voted = {name: [majority(of_row) for of_row in of_arm] for name, of_arm in outcomes.items()}
    if pairs is None:
        base = choose_baseline(list(outcomes), baseline)
        pairs = [(base, name) for name in outcomes if name != base]
    comparisons = _comparisons(outcomes, voted, pairs)
    results = {
        "task": task.name,
        "split": split,
        "num_examples": len(rows),
        "num_skipped": num_skipped,
        "model": model,
        "arms": {name: _arm(outcomes[name], voted[name]) for name in outcomes},
        "comparison": _promised(comparisons),
        "comparisons": comparisons,
        "split_hash": splits.hash,
        "test_hash": rows_hash(rows),
        "data": splits.report,
    }
    if breakdown:
        results["breakdowns"] = {name: _breakdown(name, rows, voted) for name in breakdown}
    return results


def headline(results: Mapping[str, Any]) -> float:
    """The accuracy that stands for a run: the candidate's, or that of the only arm."""
    comparison = results.get("comparison")
    return results["arms"][comparison["candidate"] if comparison else next(iter(results["arms"]))]["accuracy"]


def sample_lines(
    answers: Mapping[str, Sequence[Sequence[Answer]]], rows: Sequence[Row], outcomes: Outcomes | None = None
) -> Iterator[dict[str, Any]]:
    """The lines of `samples.jsonl`: one per example, arm and sample. Without outcomes they are not graded yet."""
    for index, row in enumerate(rows):
        for name in answers:
            for number, answer in enumerate(answers[name][index]):
                line = {"id": row.id, "row_hash": row_hash(row), "arm": name, "sample": answer.sample}
                line |= {"prompt_hash": answer.prompt_hash, "query": row.query, "answer": row.answer}
                line |= {"output": answer.output}
                if outcomes is not None:
                    line |= _graded(outcomes[name][index][number])
                line |= {"tokens": answer.tokens, "seconds": answer.seconds}
                yield line | ({} if answer.scores is None else {"scores": answer.scores})


def row_hash(row: Row) -> str:
    """A sha256 over a row's content: query and target, after the length of the query."""
    return hashlib.sha256(f"{len(row.query)}\n{row.query}{row.target}".encode()).hexdigest()


def _graded(outcome: Outcome) -> dict[str, Any]:
    grade = outcome.grade
    both = {"strict": grade.strict, "lenient": grade.lenient}
    return {
        "extracted": outcome.extracted,
        "correct": outcome.correct,
        **{name: {"extracted": one.extracted, "correct": one.correct} for name, one in both.items()},
    }


def _arm(outcomes: Sequence[Sequence[Outcome]], voted: Sequence[Outcome]) -> dict[str, Any]:
    """What an arm achieved. With several samples its answer to a question is their majority's."""
    correct, n = sum(o.correct for o in voted), len(voted)
    summary: dict[str, Any] = {
        "accuracy": correct / n,
        "ci95": list(wilson_interval(correct, n)),
        "correct": correct,
        "invalid": sum(o.extracted is None for o in voted),
    }
    for name in ("strict", "lenient"):
        found = [getattr(o.grade, name) for o in voted]
        right = sum(one.correct for one in found)
        summary[name] = {"accuracy": right / n, "correct": right, "invalid": sum(f.extracted is None for f in found)}
    if len(outcomes[0]) > 1:
        summary["samples"] = _samples(outcomes, correct / n)
    return summary


def _samples(outcomes: Sequence[Sequence[Outcome]], majority_accuracy: float) -> dict[str, Any]:
    """Statistics of several answers to each question, with errors clustered by question."""
    k = len(outcomes[0])
    right = [sum(o.correct for o in of_row) for of_row in outcomes]
    mean, error = clustered_mean([count / k for count in right])
    sizes = sorted({1, k} | {size for size in (2, 4, 8, 16, 32, 64, 128) if size < k})
    return {
        "num_samples": k,
        "mean_accuracy": mean,
        "standard_error": error,
        "ci95": [max(mean - Z95 * error, 0.0), min(mean + Z95 * error, 1.0)],
        "majority_vote": majority_accuracy,
        "pass_at_k": {str(size): sum(pass_at_k(k, c, size) for c in right) / len(right) for size in sizes},
    }


def _comparisons(
    outcomes: Outcomes, voted: Mapping[str, Sequence[Outcome]], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Baseline and candidate of every pair, with p corrected for as many comparisons."""
    result: list[dict[str, Any]] = []
    for baseline, name in pairs:
        base, candidate, n = voted[baseline], voted[name], len(voted[name])
        paired = paired_difference([o.correct for o in base], [o.correct for o in candidate])
        scores = [c.correct - float(b.correct) for b, c in zip(base, candidate, strict=True)]
        paired["bootstrap_ci95"] = list(bootstrap_interval(scores))
        paired["minimum_detectable_difference"] = minimum_detectable_difference(n, paired["wins"] + paired["losses"])
        if len(outcomes[name][0]) > 1:
            paired["samples"] = _difference_of_means(outcomes[baseline], outcomes[name])
        result.append({"baseline": baseline, "candidate": name, **paired})
    for comparison, p in zip(result, holm([one["mcnemar_p"] for one in result]), strict=True):
        comparison["holm_p"] = p
    return result


def _difference_of_means(
    baseline: Sequence[Sequence[Outcome]], candidate: Sequence[Sequence[Outcome]]
) -> dict[str, Any]:
    """The difference of the mean accuracies of several samples; questions are what is drawn."""
    shares = [
        (sum(o.correct for o in ours) - sum(o.correct for o in theirs)) / len(ours)
        for theirs, ours in zip(baseline, candidate, strict=True)
    ]
    mean, error = clustered_mean(shares)
    return {"difference": mean, "standard_error": error, "bootstrap_ci95": list(bootstrap_interval(shares))}


def _promised(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The one comparison under the promised keys: that of `optimized`, or else the first. None for a single arm."""
    keys = ("baseline", "candidate", "difference", "ci95", "wins", "losses", "mcnemar_p")
    chosen = next((one for one in comparisons if one["candidate"] == "optimized"), next(iter(comparisons), None))
    return None if chosen is None else {key: chosen[key] for key in keys}


def _breakdown(field: str, rows: Sequence[Row], voted: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, Any]]:
    """For every value of a kept field: how many rows have it, and each arm's accuracy on them."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.fields.get(field, ""), []).append(index)
    result = {}
    for value in sorted(groups, key=_natural):
        indices = groups[value]
        counts = {name: sum(outcomes[i].correct for i in indices) for name, outcomes in voted.items()}
        n = len(indices)
        arms = {
            name: {"accuracy": count / n, "ci95": list(wilson_interval(count, n)), "correct": count}
            for name, count in counts.items()
        }
        result[value] = {"num_examples": n, "arms": arms}
    return result


def _natural(text: str) -> list[Any]:
    """`Level 2` before `Level 10`."""
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(re.split(r"(\d+)", text))]
