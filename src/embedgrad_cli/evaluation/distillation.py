"""What a prompt that was distilled keeps of its teacher, and what it saves: from the test of both on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.outcomes import Outcome
from embedgrad_cli.evaluation.significance import gain_kept, paired_difference, wilson_interval
from embedgrad_cli.storage.distillation import Distillation

TEACHER = "teacher"  # its arm in the test


def distillation_of(arms: Mapping[str, Arm], outcomes: Mapping[str, Sequence[Sequence[Outcome]]]) -> Distillation:
    """Compare the arms `teacher` and `optimized`, with one answer to each row."""
    answered = {name: [of_row[0] for of_row in outcomes[name]] for name in ("seed", TEACHER, "optimized")}
    right = {name: [outcome.correct for outcome in of_arm] for name, of_arm in answered.items()}
    share, interval = gain_kept(right["seed"], right[TEACHER], right["optimized"])
    difference = paired_difference(right[TEACHER], right["optimized"])
    pairs = list(zip(answered[TEACHER], answered["optimized"], strict=True))
    same = sum(teacher.extracted is not None and teacher.extracted == ours.extracted for teacher, ours in pairs)
    tokens = {name: fmean(len(example.tokens) for example in arms[name].examples) for name in (TEACHER, "optimized")}
    seconds = {name: fmean(outcome.answer.seconds for outcome in of_arm) for name, of_arm in answered.items()}
    return Distillation(
        teacher_tokens=arms[TEACHER].prompt.slots.num_tokens,
        prompt_tokens=arms["optimized"].prompt.slots.num_tokens,
        teacher_tokens_per_query=tokens[TEACHER],
        tokens_per_query=tokens["optimized"],
        teacher_seconds_per_answer=seconds[TEACHER],
        seconds_per_answer=seconds["optimized"],
        gain_kept=share,
        gain_kept_ci95=interval,
        difference=difference.difference,
        difference_ci95=difference.ci95,
        agreement=same / len(pairs),
        agreement_ci95=wilson_interval(same, len(pairs)),
    )
