"""What evaluations have in common, whoever answers: what an earlier run left, the answers, their grades and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path

from embedgrad_cli.commands.regrade import read_digests, regrade
from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.schema import WITHOUT_EFFECT, EvaluateConfig
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress
from embedgrad_cli.evaluation.outcomes import Outcome, grade_answers
from embedgrad_cli.evaluation.results import sample_lines
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.reports.write import finish
from embedgrad_cli.storage.files import write_json, write_json_lines
from embedgrad_cli.storage.interrupts import StopAsked, Stopped, StopRequest
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.run_lock import lock_run
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.terminal import report
from embedgrad_cli.terminal.progress import TestDisplay
from embedgrad_cli.tracking.tracked import tracked

Evaluate = Callable[[RunDirectory, RunLog], float | None]
CheckDone = Callable[[RunDigests | None, RunDirectory], None]
Answered = Mapping[str, Sequence[Sequence[Answer]]]  # by arm: [rows][samples]


def run_evaluation(
    config: EvaluateConfig, evaluate: Evaluate, check_done: CheckDone, ranks: Ranks = ALONE
) -> float | None:
    """Evaluate, or grade what is answered, or report that the evaluation in `output_dir` is finished.

    Args:
        check_done: refuses an `output_dir` whose answers were given to something else than what is asked for now.
        ranks: share the answering; the first one alone knows the accuracy in the end.
    """
    with ExitStack() as stack:
        ranks.together(lambda: stack.enter_context(_locked(config, ranks)))
        if config.mode == "regrade":
            return regrade(config)
        directory = ranks.together(lambda: RunDirectory(Path(config.output_dir), asdict(config), free=WITHOUT_EFFECT))
        with RunLog(config.log_level, quiet=not ranks.is_first) as run_log:
            is_answered, *_ = ranks.gather(lambda: directory.is_finished or _is_predicted(directory))
            if is_answered:
                return _answered_before(config, directory, check_done) if ranks.is_first else None
            with tracked(directory.path, config.tracker, ranks.is_first):
                return evaluate(directory, run_log)


def _locked(config: EvaluateConfig, ranks: Ranks) -> AbstractContextManager[None]:
    """Only the first rank writes, so it has the lock."""
    return lock_run(Path(config.output_dir)) if ranks.is_first else nullcontext()


def _is_predicted(directory: RunDirectory) -> bool:
    """Whether --predict-only has answered everything."""
    return directory.samples.exists() and not directory.answers.exists()


def _answered_before(config: EvaluateConfig, directory: RunDirectory, check_done: CheckDone) -> float | None:
    if directory.is_finished:
        results = Results.read(directory.results)
        check_done(results.digests, directory)
        if directory.was_killed_at_its_end:
            finish(directory, config.report)
        with tracked(directory.path, config.tracker):  # what the tracker does not have yet
            report.already_finished(directory.path, results)
        return results.primary_accuracy
    check_done(read_digests(directory), directory)
    if config.mode == "full":
        return regrade(config)
    report.answered(directory.path)
    return None


def answer_and_report(
    config: EvaluateConfig,
    directory: RunDirectory,
    rows: Sequence[Row],
    answer: Callable[[AnswerLog, Callable[[str, int], Progress]], Answered],
    results_of: Callable[[Mapping[str, list[list[Outcome]]]], Results],
    ranks: Ranks = ALONE,
) -> float | None:
    """Let every arm answer, grade that, and write and print what came out.

    Args:
        answer: what the log holds already is not answered again.
        results_of: of the outcomes by arm.
        ranks: all of them answer; the first one grades and writes.

    Returns: the primary accuracy; None with `mode=predict-only`, where nothing is graded, and on other ranks.

    Raises:
        Stopped: asked to stop; the answers so far are kept.
    """
    outcomes = dict[str, list[list[Outcome]]]()
    with StopRequest():
        try:
            quiet = config.quiet or not ranks.is_first
            with TestDisplay([parse_arm(item).name for item in config.arms], quiet) as display:
                answers = answer(AnswerLog.shared(directory.answers, ranks), display.arm)
            if not (ranks.is_first or ranks.joins_first):
                return None
            if config.mode == "full":
                outcomes = {name: grade_answers(rows, of_arm, config.task) for name, of_arm in answers.items()}
        except StopAsked:
            raise ranks.alike(Stopped("while the arms answered", directory.path)) from None
    results = results_of(outcomes) if config.mode == "full" else None
    if not ranks.is_first:
        return None
    if results is None:
        write_json_lines(directory.samples, sample_lines(answers, rows))
        directory.forget_unfinished()
        report.answered(directory.path)
        return None
    write_json_lines(directory.samples, sample_lines(answers, rows, outcomes))
    write_json(directory.results, results)
    report.results(results, rows, outcomes, directory.path)
    finish(directory, config.report)
    return results.primary_accuracy
