"""What evaluations have in common, whoever answers: what an earlier run left, the answers, their grades and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from embedgrad_cli.commands.regrade import read_digests, regrade
from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.schema import WITHOUT_EFFECT, EvaluateConfig
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress
from embedgrad_cli.evaluation.outcomes import Outcome, grade_answers
from embedgrad_cli.evaluation.results import sample_lines
from embedgrad_cli.reports.write import report_of_run
from embedgrad_cli.storage.files import write_json, write_json_lines
from embedgrad_cli.storage.interrupts import StopAsked, Stopped, StopRequest
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.run_lock import lock_run
from embedgrad_cli.storage.run_records import Results
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.terminal import report
from embedgrad_cli.terminal.progress import TestDisplay
from embedgrad_cli.tracking.tracked import tracked

Evaluate = Callable[[RunDirectory, RunLog], float | None]
CheckDone = Callable[[RunDigests | None, RunDirectory], None]
Answered = Mapping[str, Sequence[Sequence[Answer]]]  # by arm: [rows][samples]


def run_evaluation(config: EvaluateConfig, evaluate: Evaluate, check_done: CheckDone) -> float | None:
    """Evaluate, or grade what is answered, or report that the evaluation in `output_dir` is finished.

    Args: check_done: refuses an `output_dir` whose answers were given to something else than what is asked for now.
    """
    with lock_run(Path(config.output_dir)):
        if config.mode == "regrade":
            return regrade(config)
        directory = RunDirectory(Path(config.output_dir), asdict(config), free=WITHOUT_EFFECT)
        with RunLog(config.log_level) as run_log:
            if directory.is_finished:
                results = Results.read(directory.results)
                check_done(results.digests, directory)
                with tracked(directory.path, config.tracker):  # what the tracker does not have yet
                    report.already_finished(directory.path, results)
                return results.primary_accuracy
            if directory.samples.exists() and not directory.answers.exists():  # --predict-only has answered everything
                check_done(read_digests(directory), directory)
                if config.mode == "full":
                    return regrade(config)
                report.answered(directory.path)
                return None
            with tracked(directory.path, config.tracker):
                return evaluate(directory, run_log)


def answer_and_report(
    config: EvaluateConfig,
    directory: RunDirectory,
    rows: Sequence[Row],
    answer: Callable[[AnswerLog, Callable[[str, int], Progress]], Answered],
    results_of: Callable[[Mapping[str, list[list[Outcome]]]], Results],
) -> float | None:
    """Let every arm answer, grade that, and write and print what came out.

    Args:
        answer: what the log holds already is not answered again.
        results_of: of the outcomes by arm.

    Returns: the primary accuracy; None with `mode=predict-only`, where nothing is graded.

    Raises:
        Stopped: asked to stop; the answers so far are kept.
    """
    outcomes = dict[str, list[list[Outcome]]]()
    with StopRequest():
        try:
            with TestDisplay([parse_arm(item).name for item in config.arms], config.quiet) as display:
                answers = answer(AnswerLog(directory.answers), display.arm)
            if config.mode == "full":
                outcomes = {name: grade_answers(rows, of_arm, config.task) for name, of_arm in answers.items()}
        except StopAsked:
            raise Stopped("while the arms answered", directory.path) from None
    if config.mode == "predict-only":
        write_json_lines(directory.samples, sample_lines(answers, rows))
        directory.answers.unlink()
        report.answered(directory.path)
        return None
    results = results_of(outcomes)
    write_json_lines(directory.samples, sample_lines(answers, rows, outcomes))
    write_json(directory.results, results)
    directory.answers.unlink()
    report.results(results, rows, outcomes, directory.path)
    report_of_run(directory.path, config.report)
    return results.primary_accuracy
