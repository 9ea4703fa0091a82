"""`results.json`, which says all that came of a run.

results = Results.read(Path("outputs/demo/results.json"))
results.arms["optimized"].accuracy

Begin with `Results`, the last of these: the records before it stand under its keys. All accuracies are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from embedgrad_cli.storage.arm_records import ArmSummary, Breakdown, Comparison
from embedgrad_cli.storage.distillation import Distillation
from embedgrad_cli.storage.engine_record import EngineRecord
from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.storage.server_record import ServerRecord


@dataclass(frozen=True, kw_only=True)
class BrokenRows(Record):
    """Rows left out with `task.broken=skip`; `rows` holds a line per kind of defect and file."""

    count: int
    rows: list[str]


@dataclass(frozen=True, kw_only=True)
class DataReport(Record):
    """What happened to the rows that were read.

    `contradictions` are ids of rows whose query occurs with different answers; `overlaps_removed` counts rows of train
    or validation that a later split also holds; `fewshot` are ids of the worked examples drawn from train,
    `demonstrations` of the rows of train in the seed prompt; `counts` are rows per split. `revision` is the commit of a
    data set of the hub.
    """

    duplicates_removed: int
    contradictions: list[str]
    overlaps_removed: dict[str, int]
    fewshot: list[str] | None = None
    demonstrations: list[str] | None = None
    counts: dict[str, int] | None = None
    broken_rows_skipped: BrokenRows | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Validation(Record):
    """The validation that chose the prompt: after which step, how accurate, and its loss per target token."""

    accuracy: float
    loss: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Drift(Record):
    """How far the vectors are from their seed.

    Per token: `relative_l2` is the distance over the seed's length, `cosine` the cosine between the two, `nearest`
    the vocabulary id with the highest cosine. `nearest_kept` counts the vectors whose nearest token is their seed's.
    Nearest tokens are not meanings: prompts close to any given text can do anything (Khashabi et al., 2112.08348).
    """

    relative_l2: list[float] | None = None
    cosine: list[float] | None = None
    nearest: list[int] | None = None
    nearest_kept: int | None = None
    num_tokens: int | None = None
    mean_relative_l2: float | None = None


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Record):
    """What a prompt changes on everyday requests outside of its task (`evaluation.elsewhere`).

    `kl`: KL(seed ‖ prompt) of the model's predictions, in nats per token of the replies, over the whole vocabulary;
    `first_token_kl`: that of each reply's first token alone; `same_token`: the share of all tokens where both have the
    same likeliest one. `by_request` has the `kl` of each request by its id, for paired comparisons of runs.
    """

    kl: float
    first_token_kl: float
    same_token: float
    num_requests: int
    num_tokens: int
    by_request: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Overlap(Record):
    """How many of the rows that were looked up trained or selected a prompt under evaluation.

    `expected_by_chance` is how many of `num_rows` may have been taken for such, see `tasks.row_filter`; `excluded` says
    whether they were left out of every arm.
    """

    num_rows: int
    num_looked_up: int
    expected_by_chance: float
    excluded: bool


@dataclass(frozen=True, kw_only=True)
class ChoiceScoring(Record):
    """How choices were ranked: `rule` is `task.score`, `num_with_end` the rows where the turn's end was scored too."""

    rule: str
    num_with_end: int


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """Seconds that the process which finished a run spent; what was done before a stop is not among them.

    `loading` is the model's, `encoding` from rows to tokens with the run's digests, `checking` the trial whether the
    model can share a prefix, `answering` the making of targets that the data does not have, `test` by arm: of arms that
    read the same, the first has answered for all. Files of earlier versions lack `answering` and `elsewhere`.
    """

    reading: float
    loading: float
    encoding: float
    checking: float
    training: float
    validation: float
    test: dict[str, float]
    grading: float
    answering: float | None = None
    elsewhere: float | None = None

    @property
    def total(self) -> float:
        return sum(self.phases.values())

    @property
    def phases(self) -> dict[str, float]:
        """All of them, in the order of a run; `test` is the sum of its arms."""
        known = {name: seconds for name, seconds in vars(self).items() if seconds is not None}
        return {**known, "test": sum(self.test.values())}


@dataclass(frozen=True, kw_only=True)
class RenderedRow(Record):
    """What the model reads of one row under an arm, up to where its answer begins.

    `slots` are the character ranges of `text` where the prompt stands; if `vectors` is not None, so many vectors stand
    there instead of the text. `added_system_turn` is a system turn that the chat template wrote though the messages
    have none, `added_text` other text of its own before the last message.
    """

    row: str
    text: str
    slots: list[list[int]]
    vectors: int | None = None
    added_system_turn: str | None = None
    added_text: str | None = None


@dataclass(frozen=True, kw_only=True)
class RenderedArms(Record):
    """A row under every arm, kept in a file of its own for answers that are graded later."""

    arms: dict[str, RenderedRow]


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """What an evaluation's results say beside the answers, for which the model is needed; under the same keys there.

    `--predict-only` keeps it in `measured.json`, for a grading without the model.
    """

    slow_arms: dict[str, str] | None = None
    engine: EngineRecord | None = None
    artifact: str | None = None
    validation: Validation | None = None
    drift: Drift | None = None
    elsewhere: Elsewhere | None = None

    @classmethod
    def of(cls, results: Results) -> Measured:
        """What results say already."""
        return cls(**{key.name: getattr(results, key.name) for key in fields(cls)})

    def added_to(self, results: Results) -> Results:
        """The results with these keys."""
        return replace(results, **vars(self))


@dataclass(frozen=True, kw_only=True)
class Results(Record):
    """`results.json`.

    `comparison` is the comparison that matters most, of `optimized` if there is one; None for a single arm.
    `comparisons` has all of them. `scoring` is None where answers are generated. `test_hash` names the rows of the
    split that were answered, `split_hash` those of all splits; `digests` is what a run that goes on is checked against.
    Answers end at `stop` strings and are by `engine`, if not embedgrad's own. `slow_arms` says of arms that share no
    trunk why not. `rendered` shows the first row under every arm. `overlap` is None where no artifact knows its rows.
    `advice` is on the next run's settings. What follows `breakdowns` is there where a command knows it.
    """

    task: str
    split: str
    num_examples: int
    num_skipped: int | None = None
    model: str
    arms: dict[str, ArmSummary]
    comparison: Comparison | None
    comparisons: list[Comparison] | None = None
    scoring: ChoiceScoring | None = None
    split_hash: str | None = None
    test_hash: str | None = None
    stop: list[str] | None = None
    data: DataReport | None = None
    slow_arms: dict[str, str] | None = None
    overlap: Overlap | None = None
    rendered: dict[str, RenderedRow] | None = None
    breakdowns: dict[str, dict[str, Breakdown]] | None = None
    validation: Validation | None = None
    steps: int | None = None
    advice: str | None = None
    artifact: str | None = None
    drift: Drift | None = None
    elsewhere: Elsewhere | None = None
    peak_memory_bytes: int | None = None
    digests: RunDigests | None = None
    timing: Timing | None = None
    distillation: Distillation | None = None
    server: ServerRecord | None = None
    engine: EngineRecord | None = None

    @property
    def template_additions(self) -> list[tuple[str, str, list[str]]]:
        """What the chat template wrote by itself: "a system turn" or "text", its words, and the arms that got it."""
        found: dict[tuple[str, str], list[str]] = {}
        for name, row in (self.rendered or {}).items():
            for kind, text in (("a system turn", row.added_system_turn), ("text", row.added_text)):
                if text:
                    found.setdefault((kind, text), []).append(name)
        return [(kind, text, names) for (kind, text), names in found.items()]

    @property
    def every_comparison(self) -> list[Comparison]:
        """All comparisons; an earlier version wrote none but the one that matters most."""
        return self.comparisons or ([self.comparison] if self.comparison else [])

    @property
    def main_comparison(self) -> Comparison | None:
        """`comparison` with the p that its verdict goes by, corrected for all comparisons."""
        main = self.comparison
        if main is None:
            return None
        corrected = {(one.baseline, one.candidate): one.holm_p for one in self.every_comparison}
        return replace(main, holm_p=corrected.get((main.baseline, main.candidate)))

    @property
    def primary_accuracy(self) -> float:
        """The accuracy that stands for a run: the candidate's, or that of the only arm."""
        name = self.comparison.candidate if self.comparison else next(iter(self.arms))
        return self.arms[name].accuracy

    @property
    def selection_accuracy(self) -> float:
        """What a sweeper maximises: in validation, or the primary one where nothing was validated."""
        return self.validation.accuracy if self.validation else self.primary_accuracy
