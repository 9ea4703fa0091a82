"""What outcomes add up to: `results.json` and the lines of `samples.jsonl`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from embedgrad_cli.config.arm_spec import choose_baseline
from embedgrad_cli.config.spelling import natural
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.evaluation.answer_log import Answer
from embedgrad_cli.evaluation.outcomes import Outcome
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
from embedgrad_cli.evaluation.vote import majority
from embedgrad_cli.storage.arm_records import (
    ArmSummary,
    Breakdown,
    Comparison,
    Endings,
    ExtractionSummary,
    SamplesDifference,
    SamplesSummary,
)
from embedgrad_cli.storage.results_record import ChoiceScoring, Overlap, RenderedRow, Results
from embedgrad_cli.storage.sample_records import FoundAnswer, Sample
from embedgrad_cli.tasks.graders import Extraction
from embedgrad_cli.tasks.load import Row, Splits, rows_hash
from embedgrad_cli.tasks.splits import row_hash

Outcomes = Mapping[str, Sequence[Sequence[Outcome]]]  # by arm: [rows][samples]
SAMPLE_SIZES = (2, 4, 8, 16, 32, 64, 128)  # the k of pass@k, beside 1 and all samples


def results_of(
    outcomes: Outcomes,
    rows: Sequence[Row],
    task: TaskConfig,
    splits: Splits,
    *,
    split: str,
    num_skipped: int,
    overlap: Overlap | None = None,
    rendered: Mapping[str, RenderedRow] | None = None,
    model: str,
    slow_arms: Mapping[str, str] | None = None,
    baseline: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    breakdown: Sequence[str] | None = None,
) -> Results:
    """What every command's results have in common.

    Args:
        slow_arms: why arms are computed without a shared prefix.
        pairs: of arms to compare, the first of each being the baseline; None: every arm with `baseline`.
        breakdown: kept fields, by whose values the accuracies are broken down.
    """
    voted = {name: [majority(of_row) for of_row in of_arm] for name, of_arm in outcomes.items()}
    if pairs is None:
        base = choose_baseline(list(outcomes), baseline)
        pairs = [(base, name) for name in outcomes if name != base]
    comparisons = _comparisons(outcomes, voted, pairs)
    return Results(
        task=task.name,
        split=split,
        num_examples=len(rows),
        num_skipped=num_skipped,
        model=model,
        slow_arms=None if slow_arms is None else dict(slow_arms),
        arms={name: _arm(outcomes[name], voted[name]) for name in outcomes},
        comparison=_primary_comparison(comparisons),
        comparisons=comparisons,
        scoring=_scoring(outcomes, task),
        split_hash=splits.hash,
        test_hash=rows_hash(rows),
        stop=(task.stop or None) if task.kind == "generation" else None,
        data=splits.report,
        overlap=overlap,
        rendered=dict(rendered) if rendered else None,
        breakdowns={name: _breakdown(name, rows, voted) for name in breakdown} if breakdown else None,
    )


def sample_lines(
    answers: Mapping[str, Sequence[Sequence[Answer]]], rows: Sequence[Row], outcomes: Outcomes | None = None
) -> Iterator[Sample]:
    """The lines of `samples.jsonl`: one per example, arm and sample. Without outcomes they are not graded yet."""
    for index, row in enumerate(rows):
        for name in answers:
            for number, answer in enumerate(answers[name][index]):
                line = Sample(
                    id=row.id,
                    row_hash=row_hash(row),
                    arm=name,
                    sample=answer.sample,
                    prompt_hash=answer.prompt_hash,
                    query=row.query,
                    answer=row.answer,
                    output=answer.output,
                    tokens=answer.tokens,
                    seconds=answer.seconds,
                    scores=answer.scores,
                    choice_tokens=answer.choice_tokens,
                    with_end=answer.with_end,
                    ending=answer.ending,
                )
                yield line if outcomes is None else _graded(line, outcomes[name][index][number])


def _scoring(outcomes: Outcomes, task: TaskConfig) -> ChoiceScoring | None:
    """How the choices were ranked. Whether a choice begins another may depend on the arm: `bare` is tokenised apart."""
    if task.kind != "choice":
        return None
    rows = zip(*outcomes.values(), strict=True)
    with_end = (any(outcome.answer.with_end for of_row in of_arms for outcome in of_row) for of_arms in rows)
    return ChoiceScoring(rule=task.score, num_with_end=sum(with_end))


def _graded(line: Sample, outcome: Outcome) -> Sample:
    strict, lenient = (
        FoundAnswer(extracted=extraction.extracted, correct=extraction.correct, undecided=extraction.undecided or None)
        for extraction in (outcome.grade.strict, outcome.grade.lenient)
    )
    return replace(line, extracted=outcome.extracted, correct=outcome.correct, strict=strict, lenient=lenient)


def _arm(outcomes: Sequence[Sequence[Outcome]], voted: Sequence[Outcome]) -> ArmSummary:
    """What an arm achieved. With several samples its answer to a question is their majority's."""
    correct, n = sum(outcome.correct for outcome in voted), len(voted)
    return ArmSummary(
        accuracy=correct / n,
        ci95=wilson_interval(correct, n),
        correct=correct,
        invalid=sum(outcome.extracted is None for outcome in voted),
        undecided=sum(outcome.counted.undecided for outcome in voted) or None,
        strict=_extraction([outcome.grade.strict for outcome in voted]),
        lenient=_extraction([outcome.grade.lenient for outcome in voted]),
        samples=_samples(outcomes, correct / n) if len(outcomes[0]) > 1 else None,
        endings=_endings([outcome.answer for of_row in outcomes for outcome in of_row]),
    )


def _endings(answers: Sequence[Answer]) -> Endings | None:
    counts = Counter(answer.ending for answer in answers)
    if None in counts:
        return None
    return Endings(end_of_turn=counts["end_of_turn"], stop=counts["stop"], limit=counts["limit"])


def _extraction(extractions: Sequence[Extraction]) -> ExtractionSummary:
    correct = sum(extraction.correct for extraction in extractions)
    invalid = sum(extraction.extracted is None for extraction in extractions)
    return ExtractionSummary(accuracy=correct / len(extractions), correct=correct, invalid=invalid)


def _samples(outcomes: Sequence[Sequence[Outcome]], majority_accuracy: float) -> SamplesSummary:
    """Statistics of several answers to each question, with errors clustered by question."""
    k = len(outcomes[0])
    right = [sum(outcome.correct for outcome in of_row) for of_row in outcomes]
    mean, error = clustered_mean([count / k for count in right])
    margin = math.inf if error is None else Z95 * error
    sizes = [1, *(size for size in SAMPLE_SIZES if size < k), k]
    return SamplesSummary(
        num_samples=k,
        mean_accuracy=mean,
        standard_error=error,
        ci95=(max(mean - margin, 0.0), min(mean + margin, 1.0)),
        majority_vote=majority_accuracy,
        pass_at_k={str(size): sum(pass_at_k(k, c, size) for c in right) / len(right) for size in sizes},
    )


def _comparisons(
    outcomes: Outcomes, voted: Mapping[str, Sequence[Outcome]], pairs: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """Baseline and candidate of every pair, with p corrected for as many comparisons."""
    comparisons = [_compare(pair, outcomes, voted) for pair in pairs]
    corrected = holm([comparison.mcnemar_p for comparison in comparisons])
    return [replace(comparison, holm_p=p) for comparison, p in zip(comparisons, corrected, strict=True)]


def _compare(pair: tuple[str, str], outcomes: Outcomes, voted: Mapping[str, Sequence[Outcome]]) -> Comparison:
    baseline, candidate = pair
    right = [[outcome.correct for outcome in voted[name]] for name in pair]
    paired = paired_difference(*right)
    has_samples = len(outcomes[candidate][0]) > 1
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        **vars(paired),
        bootstrap_ci95=bootstrap_interval([ours - float(theirs) for theirs, ours in zip(*right, strict=True)]),
        minimum_detectable_difference=minimum_detectable_difference(len(right[0]), paired.wins + paired.losses),
        samples=_difference_of_means(outcomes[baseline], outcomes[candidate]) if has_samples else None,
    )


def _difference_of_means(
    baseline: Sequence[Sequence[Outcome]], candidate: Sequence[Sequence[Outcome]]
) -> SamplesDifference:
    """The difference of the mean accuracies of several samples; questions are what is drawn."""
    shares = [
        (sum(outcome.correct for outcome in ours) - sum(outcome.correct for outcome in theirs)) / len(ours)
        for theirs, ours in zip(baseline, candidate, strict=True)
    ]
    mean, error = clustered_mean(shares)
    return SamplesDifference(difference=mean, standard_error=error, bootstrap_ci95=bootstrap_interval(shares))


def _primary_comparison(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The one comparison under the promised keys: that of `optimized`, or else the first. None for a single arm."""
    of_optimized = (comparison for comparison in comparisons if comparison.candidate == "optimized")
    chosen = next(of_optimized, next(iter(comparisons), None))
    return None if chosen is None else chosen.promised


def _breakdown(field: str, rows: Sequence[Row], voted: Mapping[str, Sequence[Outcome]]) -> dict[str, Breakdown]:
    """For every value of a kept field: how many rows have it, and each arm's accuracy on them."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.fields.get(field, ""), []).append(index)
    return {value: _part(groups[value], voted) for value in sorted(groups, key=natural)}


def _part(indices: Sequence[int], voted: Mapping[str, Sequence[Outcome]]) -> Breakdown:
    n = len(indices)
    counts = {name: sum(outcomes[i].correct for i in indices) for name, outcomes in voted.items()}
    arms = {
        name: ArmSummary(accuracy=count / n, ci95=wilson_interval(count, n), correct=count)
        for name, count in counts.items()
    }
    return Breakdown(num_examples=n, arms=arms)
