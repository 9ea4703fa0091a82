"""How long a run would take: by one step and one batch of answers that are timed here, or by a rate that is assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from embedgrad_cli.core.passes.operations import Costs, loss_operations, needed_operations
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog
from embedgrad_cli.evaluation.answers import answer_rows
from embedgrad_cli.evaluation.arms import Arm
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.forecast.figures import TimeFigures, WorkFigures
from embedgrad_cli.forecast.workload import Workload, answer_figures

TERA = 1e12


def time_run(work: Workload, start: float) -> TimeFigures:
    """Time one step of middle size, and one batch of validation; what else there is takes as long by its operations.

    Answers that are generated are taken to be as long everywhere as they were in this batch.

    Args:
        work: of a loaded model.
        start: seconds from the start of the program until everything was encoded.
    """
    costs = Costs.of(work.model.network)
    training = step = 0.0
    words = list[str]()
    if work.batches:
        batch = sorted(work.batches, key=lambda one: needed_operations(costs, one))[len(work.batches) // 2]
        seconds = _time_step(work, batch)
        training = seconds * sum(work.step_operations(costs)) / needed_operations(costs, batch)
        step = training / len(work.batches)
        words.append(f"one step of {len(batch)} examples in {seconds:.3g} s")
    sample = _time_answers(work)
    words.append(f"{sample.words} to {sample.rows} of {len(work.validation.rows)} validation examples")
    (arm,) = work.validation.arms.values()
    loss = sample.loss_seconds * loss_operations(costs, arm.examples) / loss_operations(costs, sample.arm.examples)
    validation = sample.seconds_of(arm, work, costs) + loss
    test = sum(sample.seconds_of(one, work, costs) for one in work.test.arms.values())
    return TimeFigures(start, training, validation * work.num_validations, test, step, "; ".join(words))


def assumed_time(work: Workload, step: WorkFigures | None, answers: tuple[int, int], tflops: float) -> TimeFigures:
    """Operations over a rate.

    Args: answers: operations of a validation and of the test.
    """
    rate, seconds = tflops * TERA, 0.0 if step is None else step.operations / (tflops * TERA)
    validation, test = (operations / rate for operations in answers)
    return TimeFigures(0.0, seconds * len(work.batches), validation * work.num_validations, test, seconds, None)


def _time_step(work: Workload, batch: Sequence[Example]) -> float:
    """Seconds of the gradient of a batch, after one of a single example, which touches all weights."""
    size = work.config.train.micro_batch_size
    most, prompt = size if isinstance(size, int) else None, SoftPrompt(work.prompt.slots, work.prompt.seed)
    work.forward.accumulate_gradient(batch[:1], prompt, most)
    return _timed(lambda: work.forward.accumulate_gradient(batch, prompt, most), work)


@dataclass(frozen=True)
class _Sample:
    """A batch of validation that was answered: `lengths` in tokens where answers were generated."""

    arm: Arm
    lengths: list[int] | None
    seconds: float
    loss_seconds: float

    @property
    def rows(self) -> int:
        return len(self.arm.examples)

    @property
    def words(self) -> str:
        kind = "scores" if self.lengths is None else f"answers of {sum(self.lengths) / self.rows:.0f} tokens"
        return f"{kind} in {self.seconds:.3g} s"

    def seconds_of(self, arm: Arm, work: Workload, costs: Costs) -> float:
        """Of answers to all rows of an arm."""
        task, mean = work.config.task, round(sum(self.lengths) / self.rows) if self.lengths else 0
        timed = answer_figures(self.arm, task, costs, self.lengths).operations
        lengths = [mean] * len(arm.examples) if self.lengths else None
        return self.seconds * answer_figures(arm, task, costs, lengths).operations / timed


def _time_answers(work: Workload) -> _Sample:
    """Answer and grade a batch of rows whose lengths are spread as those of all are."""
    (arm,), task, size = work.validation.arms.values(), work.config.task, work.config.evaluation.batch_size
    ordered = sorted(range(len(arm.examples)), key=lambda i: len(arm.examples[i].tokens))
    every = -(-len(ordered) // size)
    chosen = ordered[every // 2 :: every]
    part = replace(arm, examples=[arm.examples[i] for i in chosen], options=[arm.options[i] for i in chosen])
    rows, answers = [work.validation.rows[i] for i in chosen], list[list[Answer]]()

    def answer() -> None:
        answers.extend(answer_rows(part, task, size, AnswerLog()))
        grade_answers(rows, answers, task)

    seconds = _timed(answer, work)
    loss_seconds = _timed(lambda: part.forward.mean_loss(part.examples, part.prompt, size), work)
    lengths = None if task.kind == "choice" else [one.tokens for of_row in answers for one in of_row]
    return _Sample(part, lengths, seconds, loss_seconds)


def _timed(call: Callable[[], object], work: Workload) -> float:
    started = time.perf_counter()
    call()
    if work.model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
