"""Compare prompts, written or saved, on the same rows. Seed, model, template, prompt and task are the
artifact's own; a group or a setting named here replaces that part (a group replaces it as a whole).

examples:
  embedgrad evaluate artifact=prompt.safetensors
  embedgrad evaluate artifact=prompt.safetensors 'arms=[none,seed,optimized,text:"Think first.",other.safetensors]'
  embedgrad evaluate model=tiny template=system task=word-problems 'arms=[none,text:"Think first."]'
  embedgrad evaluate artifact=prompt.safetensors generation.num_samples=8 generation.temperature=0.7
  embedgrad evaluate --regrade output_dir=outputs/evaluate/DATE_TIME task.extraction=strict
  embedgrad evaluate artifact=prompt.safetensors task=sst2 task.data_dir=DIR

flags:
  --predict-only         write the answers without grading them (mode=predict-only)
  --regrade              grade the answers in output_dir again, without the model (mode=regrade)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from embedgrad_cli.commands.regrade import regrade
from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.fields import as_texts, seeds_of
from embedgrad_cli.config.schema import EvaluateConfig
from embedgrad_cli.core.model.language_model import LanguageModel, load_model, pick_device
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.artifact import Artifact, check_fingerprint, load_artifact
from embedgrad_cli.core.prompt.soft_prompt import measure_drift
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.evaluation.answers import Answer, AnswerLog, answer_rows
from embedgrad_cli.evaluation.arms import ArmPrompt, Examination, examine
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.evaluation.results import headline, results_of, sample_lines
from embedgrad_cli.storage.files import read_json, write_json, write_json_lines
from embedgrad_cli.storage.interrupts import Stopped, StopRequest
from embedgrad_cli.storage.logs import log_to, start_logging
from embedgrad_cli.storage.run_directory import FREE_SETTINGS, RunDirectory
from embedgrad_cli.tasks.load import load
from embedgrad_cli.terminal import report
from embedgrad_cli.terminal.progress import TestDisplay

log = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> float | None:
    """Evaluate, or resume, or report that the evaluation in `output_dir` is finished.

    Returns: the accuracy of the arm `optimized`, or else of the first that is not the baseline; None if nothing was
    graded.

    Raises:
        ArtifactError: an artifact cannot be read or is not for this model.
        UserError: `output_dir` holds a run with other settings.
        Stopped: asked to stop (Ctrl-C, SIGTERM); the answers so far are kept.
    """
    if config.mode == "regrade":
        return regrade(config)
    directory = RunDirectory(Path(config.output_dir), asdict(config), free=(*FREE_SETTINGS, "mode"))
    if directory.is_finished:
        results = read_json(directory.results)
        report.already_finished(directory.path, results)
        return headline(results)
    if directory.samples.exists() and not directory.answers.exists():  # --predict-only has answered everything
        if config.mode == "full":
            return regrade(config)
        report.answered(directory.path)
        return None
    log_lines = start_logging(config.log_level)
    artifacts = _load_artifacts(config)
    splits = load(config.task, config.seed)
    model = load_model(config.model, pick_device(config.device))
    prompts = _prompts(config, artifacts, model)
    template = with_examples(config.template, splits.fewshot, config.task.fewshot_style)
    examination = examine(getattr(splits, config.split), model, template, config.task, prompts)
    directory.create()  # not before everything the user gave has been looked at
    log_to(directory.log, log_lines)
    answers = _answer(config, examination, directory)
    if config.mode == "predict-only":
        write_json_lines(directory.samples, sample_lines(answers, examination.rows))
        directory.answers.unlink()
        report.answered(directory.path)
        return None
    outcomes = {name: grade_answers(examination.rows, of_arm, config.task) for name, of_arm in answers.items()}
    results = results_of(
        outcomes,
        examination.rows,
        config.task,
        splits,
        split=config.split,
        num_skipped=len(examination.skipped),
        model=model.path,
        baseline=config.baseline,
        breakdown=config.evaluation.breakdown,
    )
    if "optimized" in artifacts:
        drift = measure_drift(artifacts["optimized"].prompt.to(model.device), model)
        results |= {"artifact": config.artifact, "drift": drift.to_dict()}
    write_json_lines(directory.samples, sample_lines(answers, examination.rows, outcomes))
    write_json(directory.results, results)
    directory.answers.unlink()
    report.results(results, examination.rows, outcomes, directory.path)
    return headline(results)


def _load_artifacts(config: EvaluateConfig) -> dict[str, Artifact]:
    """The artifacts that arms are made of, by the arm's name."""
    named = [parse_arm(item) for item in config.arms]
    files = {arm.name: arm.value for arm in named if arm.kind == "artifact"}
    if config.artifact is not None and any(arm.kind == "optimized" for arm in named):
        files["optimized"] = config.artifact
    return {name: load_artifact(Path(file).expanduser()) for name, file in files.items()}


def _prompts(config: EvaluateConfig, artifacts: dict[str, Artifact], model: LanguageModel) -> dict[str, ArmPrompt]:
    """What every arm puts into the template. A file brings its own seed text; `optimized` stands in prompt.text's."""
    prompts = {}
    for item in config.arms:
        arm = parse_arm(item)
        artifact = artifacts.get(arm.name)
        if artifact is None:
            texts = {"seed": seeds_of(config.prompt), "text": (arm.value,)}
            prompts[arm.name] = ArmPrompt(texts.get(arm.kind), is_bare=arm.kind == "bare")
            continue
        file = str(config.artifact) if arm.kind == "optimized" else arm.value
        check_fingerprint(artifact, model, file)
        if artifact.metadata["template"] != asdict(config.template):
            log.warning("the arm %s was optimised in another template than the one all arms stand in here", arm.name)
        text = artifact.metadata["seed"]["text"]
        seeds = seeds_of(config.prompt) if arm.kind == "optimized" else as_texts(text)
        prompts[arm.name] = ArmPrompt(seeds, artifact.prompt.to(model.device))
    return prompts


def _answer(config: EvaluateConfig, examination: Examination, directory: RunDirectory) -> dict[str, list[list[Answer]]]:
    """Let every arm answer every row; what the log holds already is not computed again."""
    answers, batch_size = AnswerLog(directory.answers), config.evaluation.batch_size
    generation = config.generation
    sampling = Sampling(generation.num_samples, generation.temperature, generation.top_p, config.seed)
    with StopRequest() as stop, TestDisplay() as display:
        return {
            name: answer_rows(
                arm,
                config.task,
                batch_size,
                answers,
                sampling,
                display.arm(name, len(arm.examples)),
                _stop_if_asked(stop, name, directory.path),
            )
            for name, arm in examination.arms.items()
        }


def _stop_if_asked(stop: StopRequest, arm: str, output_dir: Path) -> Callable[[], None]:
    def check() -> None:
        if stop.requested:
            raise Stopped(f"a batch of the arm {arm}", output_dir)

    return check
