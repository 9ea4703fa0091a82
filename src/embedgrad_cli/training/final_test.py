"""The end of an optimisation: the best prompt and the texts answer the test split once, and it is written down."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.core.kernels.memory import peak_memory
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt, measure_drift
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress
from embedgrad_cli.evaluation.answers import answer_arms
from embedgrad_cli.evaluation.arms import ArmPrompt, ArmSet
from embedgrad_cli.evaluation.distillation import TEACHER, distillation_of
from embedgrad_cli.evaluation.elsewhere import measure_elsewhere
from embedgrad_cli.evaluation.outcomes import Outcome, grade_answers
from embedgrad_cli.evaluation.results import results_of, sample_lines
from embedgrad_cli.storage.artifact_metadata import PromptMetrics, TestSummary
from embedgrad_cli.storage.files import write_json, write_json_lines
from embedgrad_cli.storage.interrupts import StopAsked, Stopped, StopRequest
from embedgrad_cli.storage.results_record import Elsewhere, Results
from embedgrad_cli.terminal import report
from embedgrad_cli.terminal.progress import TestDisplay
from embedgrad_cli.training.advice import advice_after
from embedgrad_cli.training.phases import TEST, timing_of
from embedgrad_cli.training.targets import tested_prompts
from embedgrad_cli.training.trainer import Training


@dataclass(frozen=True)
class _Tested:
    """What every arm answered, what that was worth, and what the prompt changes elsewhere."""

    arm_set: ArmSet
    answers: dict[str, list[list[Answer]]]
    outcomes: dict[str, list[list[Outcome]]]
    elsewhere: Elsewhere | None


def run_final_test(training: Training) -> float:
    """Answer the test split once with `none`, `seed`, a teacher and `optimized`, and write everything down.

    Returns: the accuracy of the validation that chose the prompt; nothing is chosen by the test's.

    Raises:
        Stopped: asked to stop (Ctrl-C, SIGTERM, SIGHUP); the answers so far are kept.
    """
    optimized = SoftPrompt(training.prompt.slots, training.prompt.seed, training.state.best_vectors)
    tested = _answered_and_graded(training, optimized)
    if tested is not None:
        _write(training, optimized, tested)
    return training.state.validation.accuracy


def _answered_and_graded(training: Training, optimized: SoftPrompt) -> _Tested | None:
    """Every rank answers; the first one has all answers and grades them, so the others have None."""
    config, model, ranks = training.config, training.model, training.ranks
    engine, stopwatch, seeds = training.engine, training.stopwatch, seeds_of(config.prompt)
    prompts = {"none": ArmPrompt(), "seed": ArmPrompt(seeds), **tested_prompts(training.targets)}
    prompts["optimized"] = ArmPrompt(seeds, optimized)
    stopwatch.begin("encoding")
    arm_set = ranks.together(lambda: training.build_arms(training.splits.test, prompts))
    log = AnswerLog.shared(training.directory.answers, ranks)
    with StopRequest(), TestDisplay(list(prompts), quiet=training.is_quiet) as display:

        def begin(arm: str, num_rows: int) -> Progress:
            stopwatch.begin(f"{TEST}{arm}")
            return display.arm(arm, num_rows)

        try:
            batch_size = config.evaluation.batch_size
            answers = answer_arms(arm_set, config.task, batch_size, log, begin, ranks=ranks, decoder_of=engine.decoder)
            engine.rest()
            stopwatch.begin("elsewhere")
            elsewhere = None
            if ranks.is_first or ranks.joins_first:
                elsewhere = measure_elsewhere(optimized, model, training.template, seeds, training.shares_trunk)
            if not ranks.is_first:
                return None
            stopwatch.begin("grading")
            outcomes = {name: grade_answers(arm_set.rows, of_arm, config.task) for name, of_arm in answers.items()}
        except StopAsked:
            raise ranks.alike(Stopped("in the test", training.directory.path)) from None
    return _Tested(arm_set, answers, outcomes, elsewhere)


def _write(training: Training, optimized: SoftPrompt, tested: _Tested) -> None:
    """The artifact with what the test said of it, the answers, the results; the person is told."""
    directory, rows, outcomes = training.directory, tested.arm_set.rows, tested.outcomes
    results = _results(training, optimized, tested)
    known = PromptMetrics(
        validation=results.validation,
        test=TestSummary.of(results),
        drift=results.drift,
        elsewhere=results.elsewhere,
    )
    training.write_artifact(optimized, known)
    write_json_lines(directory.samples, sample_lines(tested.answers, rows, outcomes))
    write_json(directory.results, results)
    report.results(results, rows, outcomes, directory.path)


def _results(training: Training, optimized: SoftPrompt, tested: _Tested) -> Results:
    config, state, arm_set = training.config, training.state, tested.arm_set
    results = results_of(
        tested.outcomes,
        arm_set.rows,
        config.task,
        training.splits,
        split="test",
        num_skipped=len(arm_set.skipped),
        rendered=arm_set.rendered,
        model=training.model.path,
        slow_arms=arm_set.slow_arms,
        breakdown=config.evaluation.breakdown,
    )
    return replace(
        results,
        validation=state.validation,
        steps=state.step,
        advice=advice_after(state.validation, state.step, config),
        drift=measure_drift(optimized, training.model),
        elsewhere=tested.elsewhere,
        peak_memory_bytes=peak_memory(training.model.device),
        digests=training.digests,
        engine=training.engine.record,
        timing=timing_of(training.stopwatch),
        distillation=distillation_of(arm_set.arms, tested.outcomes) if TEACHER in arm_set.arms else None,
    )
