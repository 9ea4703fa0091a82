"""What a forecast says, and nothing of how it is found out or printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFigures:
    """`parameters` of the whole network, `weights` their bytes, `dtype` as users write it."""

    path: str
    parameters: int
    dtype: str
    weights: int


@dataclass(frozen=True)
class WorkFigures:
    """One step, validation or test.

    Args:
        rows: examples; in the test once per arm.
        trunk: tokens that the rows share, computed once (per arm).
        branch: tokens of all rows after the trunk and before their answers.
        target: tokens of all answers: those that the loss is taken on, or that may be generated, or of choices.
        operations: multiplications and additions that are needed at least.
    """

    rows: int
    trunk: int
    branch: int
    target: int
    operations: int


@dataclass(frozen=True)
class Moment:
    """The most that is held at one stage of a run, in bytes, by what it is held for."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class DeviceFigures:
    """Where the run would be, and the bytes that it may use there; None: nobody knows."""

    name: str
    memory: int | None
    is_given: bool


@dataclass(frozen=True)
class TimeFigures:
    """Seconds of a whole run. `measured` says what was timed, or None where a rate was assumed."""

    start: float
    training: float
    validation: float
    test: float
    step: float
    measured: str | None

    @property
    def total(self) -> float:
        return self.start + self.training + self.validation + self.test


@dataclass(frozen=True)
class Forecast:
    """A whole run.

    Args:
        task: its name.
        generates: whether answers are generated; they may then be shorter than `WorkFigures.target` says.
        max_new_tokens: of an answer that is generated.
        num_rows: training, validation and test examples.
        prompt_tokens: of the seed, which are the vectors.
        steps, validations: how many, patience not counted.
        step: a mean step. validation, test: each as a whole.
        moments: by stage.
        training_answers: to training rows, of which targets are made; nothing else of the forecast has them in it.
        changes: settings with which it fits, and the peak with them, if it does not fit as it is.
    """

    task: str
    generates: bool
    max_new_tokens: int
    model: ModelFigures
    device: DeviceFigures
    num_rows: tuple[int, int, int]
    prompt_tokens: int
    steps: int
    validations: int
    step: WorkFigures | None
    validation: WorkFigures
    test: WorkFigures
    moments: dict[str, Moment]
    training_answers: int = 0
    time: TimeFigures | None = None
    changes: Changes | None = None

    @property
    def peak(self) -> int:
        return max(moment.total for moment in self.moments.values())

    @property
    def fits(self) -> bool | None:
        """None where the device's memory is not known."""
        return None if self.device.memory is None else self.peak <= self.device.memory


@dataclass(frozen=True)
class Changes:
    """Settings, as users write them, and the peak with all of them; `enough` says whether it then fits."""

    settings: tuple[str, ...]
    peak: int
    enough: bool
