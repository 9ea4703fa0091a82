"""`embedgrad evaluate server=URL`: a server answers, and no model is loaded. What it serves is compared with texts.

The rows, the graders, the files and the statistics are those of any evaluation.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from embedgrad_cli.commands.evaluation_run import Answered, answer_and_report, run_evaluation
from embedgrad_cli.commands.regrade import read_digests
from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.schema import EvaluateConfig, TemplateConfig
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.evaluation.answer_log import AnswerLog, Progress
from embedgrad_cli.evaluation.outcomes import Outcome
from embedgrad_cli.evaluation.overlap import check_overlap
from embedgrad_cli.evaluation.results import results_of
from embedgrad_cli.evaluation.served.asking import ask_arms, only_model
from embedgrad_cli.evaluation.served.client import Server
from embedgrad_cli.evaluation.served.conversations import (
    Model,
    ServedArm,
    conversations,
    conversations_digest,
    served_arms,
)
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.results_record import Overlap, Results
from embedgrad_cli.storage.run_digests import RunDigests, check_digests, warn_unchecked
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.server_record import ServerRecord
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Row, Splits
from embedgrad_cli.tasks.row_filter import RowFilter, read_seen_rows

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> float | None:
    """Evaluate by chat, or resume, or report that the evaluation in `output_dir` is finished.

    Returns: as `commands.evaluate.run`.

    Raises:
        ServerError: the server does not answer, or not as it should; the answers so far are kept.
        ArtifactError: an artifact cannot be read.
        DataError: a row that is to be tested trained or selected the artifact (see `task.overlap`).
        UserError: `output_dir` holds a run with other settings, on other data or by another model, or another process
            is at work in it.
        Stopped: asked to stop (Ctrl-C, SIGTERM, SIGHUP); the answers so far are kept.
    """
    return run_evaluation(config, partial(_evaluate, config), partial(_check_done, config))


@dataclass(frozen=True)
class _Evaluation:
    """What is to be answered, by which arms, and what the run's files are to say of it."""

    config: EvaluateConfig
    splits: Splits
    rows: list[Row]
    overlap: Overlap | None
    digests: RunDigests | None
    arms: dict[str, ServedArm]

    @property
    def record(self) -> ServerRecord:
        return ServerRecord(arms={name: arm.record(self.rows) for name, arm in self.arms.items()})


@dataclass(frozen=True)
class _Trained:
    """What an artifact says, and the rows that it knows, without its vectors."""

    metadata: ArtifactMetadata
    seen_rows: RowFilter | None


def _evaluate(config: EvaluateConfig, directory: RunDirectory, run_log: RunLog) -> float | None:
    job = _prepare(config, directory)
    directory.create(job.digests)  # not before everything the user gave has been looked at
    run_log.write_to(directory.log)
    if job.overlap:
        write_json(directory.overlap, job.overlap)
    write_json(directory.server, job.record)

    def answer(answers: AnswerLog, progress: Callable[[str, int], Progress]) -> Answered:
        return ask_arms(job.arms, job.rows, config, answers, progress)

    return answer_and_report(config, directory, job.rows, answer, partial(_results, job))


def _prepare(config: EvaluateConfig, directory: RunDirectory) -> _Evaluation:
    """Read the rows, find the models, and check that they are those that a stopped run began with."""
    trained = _trained(config)
    config, splits = load_for(config)
    rows, overlap = check_overlap(splits, config.split, trained, config.task.overlap)
    template = shown_template(config, splits)
    models = _models(config)
    named = dict.fromkeys(f"{model.name} of {model.server.url}" for model in models.values())
    now = replace(_digests(config, template, splits), server=", ".join(named))
    digests: RunDigests | None = now
    if directory.config.exists():
        digests = check_digests(read_digests(directory), now, directory.path)
    return _Evaluation(config, splits, rows, overlap, digests, served_arms(config, template, rows, models))


def _models(config: EvaluateConfig) -> dict[str, Model]:
    """Which model each arm asks, by the arm's name. A server is only asked for a name that no setting says."""
    requests, texts = config.requests, config.texts
    server = Server.at(str(config.server), _key(requests.api_key))
    of_texts = server if texts.server is None else Server.at(texts.server, _key(texts.api_key))
    own_texts = texts.server is not None or texts.model is not None
    found = dict[tuple[Server, str | None], Model]()

    def model(name: str) -> Model:
        asks_texts = own_texts and parse_arm(name).kind != "served"
        where, named = (of_texts, texts.model) if asks_texts else (server, requests.model)
        if (where, named) not in found:
            setting = "texts.model" if asks_texts else "requests.model"
            found[where, named] = Model(where, named or only_model(where, config, setting))
        return found[where, named]

    return {name: model(name) for name in (parse_arm(item).name for item in config.arms)}


def _key(variable: str | None) -> str | None:
    return None if variable is None else os.environ[variable].strip()


def _trained(config: EvaluateConfig) -> dict[str, _Trained]:
    """The artifact that the server serves, by its file, for the rows that it has seen."""
    if not any(parse_arm(item).kind == "served" for item in config.arms):
        return {}
    if config.artifact is None:
        log.warning("not known which rows trained the prompt that is served: artifact=FILE would tell")
        return {}
    path = Path(config.artifact)
    metadata = read_header(path)
    try:
        return {config.artifact: _Trained(metadata, read_seen_rows(path, metadata))}
    except Exception as error:
        raise ArtifactError(f"artifact={path} cannot be read: {error}. Copy it again, or optimise again.") from error


def _digests(config: EvaluateConfig, template: TemplateConfig, splits: Splits) -> RunDigests:
    rows = splits.rows_of(config.split)
    sent = {item: conversations(config, template, rows, item) for item in config.arms}
    return RunDigests(split=splits.content_digest, rendering=conversations_digest(sent))


def _check_done(config: EvaluateConfig, before: RunDigests | None, directory: RunDirectory) -> None:
    """Refuse an `output_dir` whose answers were given to other rows. The server is not asked."""
    if before is None:
        warn_unchecked(directory.path)
        return
    config, splits = load_for(config)
    template = shown_template(config, splits)
    check_digests(before, _digests(config, template, splits), directory.path)


def _results(job: _Evaluation, outcomes: Mapping[str, list[list[Outcome]]]) -> Results:
    results = results_of(
        outcomes,
        job.rows,
        job.config.task,
        job.splits,
        split=job.config.split,
        num_skipped=0,
        overlap=job.overlap,
        model=job.record.model,
        baseline=job.config.baseline,
        breakdown=job.config.evaluation.breakdown,
    )
    return replace(results, digests=job.digests, artifact=job.config.artifact, server=job.record)
