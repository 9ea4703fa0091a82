"""What a person reads of a distilled prompt and its teacher."""

from __future__ import annotations

from embedgrad_cli.storage.distillation import Distillation
from embedgrad_cli.storage.structure import Pair


def sentences(distillation: Distillation) -> list[str]:
    """Tokens before and after, what is kept of the teacher, and what an answer takes."""
    d = distillation
    points = f"{100 * d.difference:+.1f} points ({_range(d.difference_ci95, '+.1f')})"
    return [
        f"Distilled: {d.teacher_tokens:,} tokens in the prompt's place are {d.prompt_tokens:,} vectors. A query reads "
        f"{d.tokens_per_query:,.0f} tokens instead of {d.teacher_tokens_per_query:,.0f}, and an answer took "
        f"{_milliseconds(d.seconds_per_answer)} instead of {_milliseconds(d.teacher_seconds_per_answer)}, what all "
        "queries share computed once.",
        f"{_kept(d)} Accuracy against the teacher: {points}; the same answer in {d.agreement:.1%} of the examples "
        f"({_range(d.agreement_ci95, '.1f')} %).",
    ]


def _kept(d: Distillation) -> str:
    if d.gain_kept is None:
        return "The teacher gains nothing over the seed."
    said = f"Kept of the teacher's gain over the seed: {d.gain_kept:.0%}"
    if d.gain_kept_ci95 is None:
        return f"{said} (no interval: that gain may as well be none)."
    return f"{said} (95 % interval {_range(d.gain_kept_ci95, '.0f')} %)."


def _range(limits: Pair, form: str) -> str:
    low, high = (format(100 * limit, form) for limit in limits)
    return f"{low} to {high}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"
