"""What is to be said of results beside their figures: drift, what changed elsewhere, how answers ended, advice."""

from __future__ import annotations

import json
from collections.abc import Iterator

from embedgrad_cli.config.arm_spec import legend, short_names
from embedgrad_cli.evaluation.ranking import WORDS
from embedgrad_cli.storage.run_records import Results
from embedgrad_cli.terminal import distillation


def of_arms(summary: Results) -> Iterator[str]:
    """What the labels of arms with long names stand for."""
    yield from legend(list(summary.arms))


def of_answers(summary: Results) -> Iterator[str]:
    """How many answers did not end by themselves, and where the chat template itself wrote something."""
    yield from _endings(summary)
    yield from _additions(summary)


def of_change(summary: Results) -> Iterator[str]:
    """How far the prompt is from its seed."""
    if summary.drift:
        drift = summary.drift
        yield (
            f"Drift from the seed: {drift.mean_relative_l2:.2f} of a vector's length on average; {drift.nearest_kept} "
            f"of {drift.num_tokens} vectors still have their seed token as nearest neighbour."
        )


def of_meaning(summary: Results) -> Iterator[str]:
    """What the prompt changes elsewhere, how choices were ranked, which rows were not new, and what to do next."""
    yield from _elsewhere(summary)
    yield from _scoring(summary)
    yield from _overlap(summary)
    if summary.distillation:
        yield from distillation.sentences(summary.distillation)
    if summary.advice:
        yield summary.advice


def of_skipped(summary: Results) -> Iterator[str]:
    if summary.num_skipped:
        yield f"{summary.num_skipped} examples were too long for the model and left out of every arm."


def _endings(summary: Results) -> Iterator[str]:
    endings = {name: arm.endings for name, arm in summary.arms.items() if arm.endings}
    short = short_names(list(summary.arms))
    said = []
    for key, words in (("limit", "cut at the token limit"), ("stop", "ended by a stop string")):
        counts = {name: getattr(of_arm, key) for name, of_arm in endings.items()}
        if any(counts.values()):
            of_arms = (f"{short[name]} {count} of {endings[name].total}" for name, count in counts.items())
            said.append(f"{words}: {', '.join(of_arms)}")
    if said:
        yield f"Answers {'; '.join(said)}."


def _additions(summary: Results) -> Iterator[str]:
    """Where the chat template itself wrote something, `none` is not empty, and `seed` not only the seed."""
    short = short_names(list(summary.arms))
    for kind, text, names in summary.template_additions:
        said = f"The chat template adds {kind} of its own under {', '.join(map(short.__getitem__, names))}: "
        yield said + json.dumps(text, ensure_ascii=False)


def _elsewhere(summary: Results) -> Iterator[str]:
    found = summary.elsewhere
    if found:
        yield (
            f"Elsewhere, on {found.num_requests} everyday requests, KL(seed ‖ optimized) is {found.kl:.3f} nats per "
            f"token and {found.first_token_kl:.3f} where replies begin; the likeliest token is the seed's at "
            f"{found.same_token:.1%} of {found.num_tokens} places."
        )


def _scoring(summary: Results) -> Iterator[str]:
    scoring = summary.scoring
    if scoring is None:
        return
    said = f"Choices are ranked by {WORDS[scoring.rule]} (task.score={scoring.rule})"
    if scoring.num_with_end:
        said += f"; in {scoring.num_with_end} examples one begins another, so the end of the turn is scored too"
    yield f"{said}."


def _overlap(summary: Results) -> Iterator[str]:
    """How many of the rows were not new to a prompt."""
    overlap = summary.overlap
    if overlap is None or not overlap.num_rows:
        return
    of_all = f"{overlap.num_rows} of {overlap.num_looked_up} examples"
    chance = overlap.expected_by_chance
    by_chance = f" (up to {chance:g} by chance, as digests of so many rows are short)" if chance > 0.01 else ""
    if overlap.excluded:
        yield f"{of_all} had trained or selected a prompt{by_chance} and were left out of every arm."
    else:
        yield f"{of_all} trained or selected a prompt{by_chance}; what it achieves there says nothing of new ones."
