"""`distillation` in results.json."""

from __future__ import annotations

from dataclasses import dataclass

from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.structure import Pair


@dataclass(frozen=True, kw_only=True)
class Distillation(Record):
    """What a distilled prompt keeps of its teacher, and what it saves.

    `gain_kept` is the share of the teacher's gain in accuracy over the seed, with a bootstrap interval; None where
    the teacher has none, or where its gain may as well be none. `difference` is the accuracy minus the teacher's, with
    Newcombe's interval for paired proportions. `agreement` is the share of the rows with the teacher's answer, right
    or wrong, with Wilson's; two invalid answers are not the same one. Tokens: in the prompt's place, and of a row's
    whole conversation on average. Seconds: of an answer on average, what all rows share computed once.
    """

    teacher_tokens: int
    prompt_tokens: int
    teacher_tokens_per_query: float
    tokens_per_query: float
    teacher_seconds_per_answer: float
    seconds_per_answer: float
    gain_kept: float | None = None
    gain_kept_ci95: Pair | None = None
    difference: float
    difference_ci95: Pair
    agreement: float
    agreement_ci95: Pair
