"""`embedgrad evaluate --regrade`: the answers in a run directory, graded again without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedgrad_cli.config.schema import WITHOUT_EFFECT, EvaluateConfig
from embedgrad_cli.errors import DataError, UserError
from embedgrad_cli.evaluation.answer_log import Answer
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.evaluation.ranking import likeliest
from embedgrad_cli.evaluation.results import results_of, sample_lines
from embedgrad_cli.reports.write import report_of_run
from embedgrad_cli.storage.files import write_json, write_json_lines, write_yaml
from embedgrad_cli.storage.record import MEND
from embedgrad_cli.storage.results_record import Measured, Overlap, RenderedArms, RenderedRow, Results
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.storage.run_directory import RunDirectory, read_settings
from embedgrad_cli.storage.sample_records import Sample
from embedgrad_cli.storage.server_record import ServerRecord
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Row
from embedgrad_cli.tasks.splits import row_hash
from embedgrad_cli.terminal import report

# Settings that change what is made of the answers, and not the answers.
REGRADED = ("task.grader", "task.extraction", "task.score", "task.keep", "task.data_dir", "evaluation", "baseline")
SHOWN = 5


def regrade(config: EvaluateConfig) -> float:
    """Grade the answers in `output_dir` again; results.json, samples.jsonl and config.yaml are replaced.

    Returns: the accuracy as `evaluate.run` does.

    Raises:
        UserError: there are no complete answers, or a setting changed that they depend on.
        DataError: the task's rows are not those that were answered.
    """
    directory = RunDirectory(Path(config.output_dir), asdict(config), free=(*WITHOUT_EFFECT, *REGRADED))
    lines = _read_lines(directory)
    _, splits = load_for(config)
    every = splits.rows_of(config.split)
    rows = _answered_rows(lines, every, directory)
    answers = _by_arm(_ranked(lines, config, directory), rows, directory.samples)
    outcomes = {name: grade_answers(rows, of_arm, config.task) for name, of_arm in answers.items()}
    known = _Known.of(directory)
    num_excluded = known.overlap.num_rows if known.overlap and known.overlap.excluded else 0
    results = results_of(
        outcomes,
        rows,
        config.task,
        splits,
        split=config.split,
        num_skipped=len(every) - len(rows) - num_excluded,
        overlap=known.overlap,
        rendered=known.rendered,
        model=known.server.model if known.server else config.model.path,
        baseline=config.baseline,
        breakdown=config.evaluation.breakdown,
    )
    results = known.completed(results, splits.content_digest)
    write_json_lines(directory.samples, sample_lines(answers, rows, outcomes))
    write_yaml(directory.config, asdict(config))
    write_json(directory.results, results)
    report.results(results, rows, outcomes, directory.path)
    report_of_run(directory.path, config.report)
    return results.primary_accuracy


@dataclass(frozen=True)
class _Known:
    """What the files of a run say beside its answers: none of it depends on how these are graded."""

    measured: Measured
    digests: RunDigests | None
    overlap: Overlap | None
    rendered: dict[str, RenderedRow] | None
    server: ServerRecord | None

    @classmethod
    def of(cls, directory: RunDirectory) -> _Known:
        before = Results.read(directory.results) if directory.is_finished else None
        return cls(
            measured=_measured(directory, before),
            digests=before.digests if before else read_digests(directory),
            overlap=Overlap.read(directory.overlap) if directory.overlap.exists() else None,
            rendered=RenderedArms.read(directory.rendered).arms if directory.rendered.exists() else None,
            server=ServerRecord.read(directory.server) if directory.server.exists() else None,
        )

    def completed(self, results: Results, split: str) -> Results:
        """New results with what was known before; what the model was and read is as it was then.

        Args: split: the digest of the rows that are graded now.
        """
        digests = replace(self.digests, split=split) if self.digests else None
        return self.measured.added_to(replace(results, server=self.server, digests=digests))


def _measured(directory: RunDirectory, before: Results | None) -> Measured:
    """What was measured by whoever had the model; of predictions of an earlier version nothing is known."""
    if before is not None:
        return Measured.of(before)
    return Measured.read(directory.measured) if directory.measured.exists() else Measured()


def read_digests(directory: RunDirectory) -> RunDigests | None:
    """What the answers in `output_dir` were given to; None: an earlier version wrote them."""
    return RunDigests.read(directory.digests) if directory.digests.exists() else None


def _read_lines(directory: RunDirectory) -> list[Sample]:
    unfinished = directory.answers.exists() and not directory.is_finished
    if unfinished or not directory.samples.exists():
        raise UserError(
            f"output_dir={directory.path} holds no complete answers to grade again. Run the same command without "
            "--regrade first; it goes on where it stopped."
        )
    return Sample.read_lines(directory.samples)


def _ranked(lines: list[Sample], config: EvaluateConfig, directory: RunDirectory) -> list[Sample]:
    """The lines with the choices that `task.score` takes for answers, if it is another than the run's.

    Raises:
        UserError: an earlier version answered, which did not keep how many tokens a choice has.
    """
    rule = config.task.score
    if config.task.kind != "choice" or read_settings(directory.config)["task"]["score"] == rule:
        return lines
    if rule == "mean" and any(line.choice_tokens is None for line in lines):
        raise UserError(
            f"task.score=mean: {directory.samples} does not say how many tokens each choice has, because an earlier "
            "version wrote it. Evaluate again in another output_dir, or use task.score=normalized."
        )
    return [replace(line, output=likeliest(line.scores or {}, line.choice_tokens or {}, rule)) for line in lines]


def _answered_rows(lines: Sequence[Sample], rows: Sequence[Row], directory: RunDirectory) -> list[Row]:
    """The rows that were answered, in the order of the answers; each must still say what it said then."""
    known = {row.id: row for row in rows}
    hashes = {line.id: line.row_hash for line in lines}
    missing = [name for name in hashes if name not in known]
    changed = [name for name in hashes if name in known and row_hash(known[name]) != hashes[name]]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for names, what in ((missing, "are not there any more"), (changed, "have another query or target now"))
        if names
    ]
    if problems:
        raise DataError(
            f"the rows that {directory.samples} answers are not the task's rows: {' and '.join(problems)}. Give the "
            "data and the task that were evaluated, or evaluate again in another output_dir."
        )
    return [known[name] for name in hashes]


def _by_arm(lines: Sequence[Sample], rows: Sequence[Row], file: Path) -> dict[str, list[list[Answer]]]:
    """The answers of every arm, `[rows][samples]`.

    Raises:
        UserError: there are no answers, or an arm has not answered every row.
    """
    if not lines:
        raise UserError(f"{file} holds no answers. {MEND}")
    found: dict[tuple[str, str], list[Answer]] = {}
    for line in lines:
        of_choices = (line.scores, line.choice_tokens, line.with_end)
        answered = (line.output, line.tokens, line.seconds, *of_choices, line.ending)
        answer = Answer(line.id, line.prompt_hash, line.sample, *answered)
        found.setdefault((line.arm, line.id), []).append(answer)
    names = dict.fromkeys(arm for arm, _ in found)
    missing = [(name, row.id) for name in names for row in rows if (name, row.id) not in found]
    if missing:
        arm, row_id = missing[0]
        raise UserError(
            f"{file} has no answer of the arm {arm!r} to the row {row_id}, and {len(missing) - 1} more are missing. "
            f"{MEND}"
        )
    return {name: [found[name, row.id] for row in rows] for name in names}
