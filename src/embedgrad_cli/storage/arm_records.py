"""What arms achieved, and how they compare: `arms`, `comparisons` and `breakdowns` in results.json.

All accuracies and differences are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.structure import Pair


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary(Record):
    """What an arm achieved by one of the two extractions."""

    accuracy: float
    correct: int
    invalid: int


@dataclass(frozen=True, kw_only=True)
class SamplesSummary(Record):
    """Several answers to each question. Errors are clustered by question; `pass_at_k` is by k, as text.

    `standard_error` is None where there is a single question.
    """

    num_samples: int
    mean_accuracy: float
    standard_error: float | None
    ci95: Pair
    majority_vote: float
    pass_at_k: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Endings(Record):
    """How many generated answers ended how: at a token that ends a turn, at a stop string of the task, or at the limit:
    `task.max_new_tokens`, or where the model's context ends."""

    end_of_turn: int
    stop: int
    limit: int

    @property
    def total(self) -> int:
        return self.end_of_turn + self.stop + self.limit


@dataclass(frozen=True, kw_only=True)
class ArmSummary(Record):
    """What an arm achieved; the interval is Wilson's. With several samples its answers are their majority's.

    `endings` counts all answers; None where choices are scored, and for answers of earlier versions.
    `undecided` counts answers that could not be compared with the gold answer (math-verify took too long) and so do not
    count as right; None: there is none.
    """

    accuracy: float
    ci95: Pair
    correct: int
    invalid: int | None = None
    undecided: int | None = None
    strict: ExtractionSummary | None = None
    lenient: ExtractionSummary | None = None
    samples: SamplesSummary | None = None
    endings: Endings | None = None


@dataclass(frozen=True, kw_only=True)
class SamplesDifference(Record):
    """The difference of the mean accuracies of several samples; questions are what is drawn.

    `standard_error` is None where there is a single question.
    """

    difference: float
    standard_error: float | None
    bootstrap_ci95: Pair


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Candidate minus baseline on the same examples.

    `wins`: only the candidate is right; `losses`: only the baseline. `ci95` is Newcombe's interval for paired
    proportions, `mcnemar_p` exact and two-sided, `holm_p` corrected for all comparisons of the results.
    """

    baseline: str
    candidate: str
    difference: float
    ci95: Pair
    wins: int
    losses: int
    mcnemar_p: float
    bootstrap_ci95: Pair | None = None
    minimum_detectable_difference: float | None = None
    samples: SamplesDifference | None = None
    holm_p: float | None = None

    @property
    def promised(self) -> Comparison:
        """The same with only what `comparison` in results.json is promised to hold."""
        return replace(self, bootstrap_ci95=None, minimum_detectable_difference=None, samples=None, holm_p=None)


@dataclass(frozen=True, kw_only=True)
class Breakdown(Record):
    """The examples that have one value of a kept field, and each arm's accuracy on them."""

    num_examples: int
    arms: dict[str, ArmSummary]
