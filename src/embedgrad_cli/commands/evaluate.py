"""Compare prompts, written or saved, on the same rows. Seed, model, template, prompt and task are the
artifact's own; a group or a setting named here replaces that part (a group replaces it as a whole).

examples:
  embedgrad evaluate artifact=prompt.safetensors
  embedgrad evaluate artifact=prompt.safetensors 'arms=[none,seed,optimized,text:"Think first.",other.safetensors]'
  embedgrad evaluate model=tiny template=system task=word-problems 'arms=[none,text:"Think first."]'
  embedgrad evaluate artifact=prompt.safetensors generation.num_samples=8 generation.temperature=0.7
  embedgrad evaluate --regrade output_dir=outputs/evaluate/DATE_TIME task.extraction=strict
  embedgrad evaluate artifact=prompt.safetensors task=sst2 task.data_dir=DIR
  embedgrad evaluate artifact=prompt.safetensors seed=1 task.overlap=exclude

flags:
  --predict-only         write the answers without grading them (mode=predict-only)
  --regrade              grade the answers in output_dir again, without the model (mode=regrade)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from embedgrad_cli.commands.regrade import regrade
from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.fields import as_texts, seeds_of
from embedgrad_cli.config.schema import WITHOUT_EFFECT, EvaluateConfig, TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel, load_model, pick_device
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.prompt.artifact import Artifact, check_fingerprint, load_artifact, recorded_template
from embedgrad_cli.core.prompt.soft_prompt import measure_drift
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.evaluation.answers import Answer, AnswerLog, answer_rows
from embedgrad_cli.evaluation.arms import ArmPrompt, ArmSet, build_arms
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.evaluation.overlap import check_overlap
from embedgrad_cli.evaluation.results import results_of, sample_lines
from embedgrad_cli.storage.files import write_json, write_json_lines
from embedgrad_cli.storage.interrupts import Stopped, StopRequest
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.run_records import RenderedArms, Results
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
        DataError: a row that is to be tested trained or selected an artifact (see `task.overlap`).
        UserError: `output_dir` holds a run with other settings.
        Stopped: asked to stop (Ctrl-C, SIGTERM); the answers so far are kept.
    """
    if config.mode == "regrade":
        return regrade(config)
    directory = RunDirectory(Path(config.output_dir), asdict(config), free=WITHOUT_EFFECT)
    if directory.is_finished:
        results = Results.read(directory.results)
        report.already_finished(directory.path, results)
        return results.primary_accuracy
    if directory.samples.exists() and not directory.answers.exists():  # --predict-only has answered everything
        if config.mode == "full":
            return regrade(config)
        report.answered(directory.path)
        return None
    with RunLog(config.log_level) as run_log:
        return _evaluate(config, directory, run_log)


def _evaluate(config: EvaluateConfig, directory: RunDirectory, run_log: RunLog) -> float | None:
    artifacts = _load_artifacts(config)
    splits = load(config.task, config.seed)
    by_file = {_file(config, arm): artifact for arm, artifact in artifacts.items()}
    rows, overlap = check_overlap(splits, config.split, by_file, config.task.overlap)
    model = load_model(config.model, pick_device(config.device))
    template = with_examples(config.template, splits.fewshot, config.task.fewshot_style)
    prompts = _prompts(config, artifacts, model, template)
    arm_set = build_arms(rows, model, template, config.task, prompts)
    directory.create()  # not before everything the user gave has been looked at
    run_log.write_to(directory.log)
    if overlap:
        write_json(directory.overlap, overlap)
    write_json(directory.rendered, RenderedArms(arms=arm_set.rendered))
    answers = _answer(config, arm_set, directory)
    if config.mode == "predict-only":
        write_json_lines(directory.samples, sample_lines(answers, arm_set.rows))
        directory.answers.unlink()
        report.answered(directory.path)
        return None
    outcomes = {name: grade_answers(arm_set.rows, of_arm, config.task) for name, of_arm in answers.items()}
    results = results_of(
        outcomes,
        arm_set.rows,
        config.task,
        splits,
        split=config.split,
        num_skipped=len(arm_set.skipped),
        overlap=overlap,
        rendered=arm_set.rendered,
        model=model.path,
        baseline=config.baseline,
        breakdown=config.evaluation.breakdown,
    )
    if "optimized" in artifacts:
        drift = measure_drift(artifacts["optimized"].prompt.to(model.device), model)
        validation = artifacts["optimized"].metadata.metrics.validation
        results = replace(results, artifact=config.artifact, validation=validation, drift=drift)
    write_json_lines(directory.samples, sample_lines(answers, arm_set.rows, outcomes))
    write_json(directory.results, results)
    directory.answers.unlink()
    report.results(results, arm_set.rows, outcomes, directory.path)
    return results.primary_accuracy


def _load_artifacts(config: EvaluateConfig) -> dict[str, Artifact]:
    """The artifacts that arms are made of, by the arm's name."""
    specs = [parse_arm(item) for item in config.arms]
    files = {spec.name: spec.value for spec in specs if spec.kind == "artifact"}
    if config.artifact is not None and any(spec.kind == "optimized" for spec in specs):
        files["optimized"] = config.artifact
    return {name: load_artifact(Path(file).expanduser()) for name, file in files.items()}


def _file(config: EvaluateConfig, arm: str) -> str:
    """The artifact's file of an arm made of one."""
    return str(config.artifact) if arm == "optimized" else arm


def _prompts(
    config: EvaluateConfig, artifacts: dict[str, Artifact], model: LanguageModel, template: TemplateConfig
) -> dict[str, ArmPrompt]:
    """What every arm puts into the template. A file brings its own seed text; `optimized` stands in prompt.text's."""
    prompts = {}
    for item in config.arms:
        spec = parse_arm(item)
        artifact = artifacts.get(spec.name)
        if artifact is None:
            texts = {"seed": seeds_of(config.prompt), "text": (spec.value,)}
            prompts[spec.name] = ArmPrompt(texts.get(spec.kind), is_bare=spec.kind == "bare")
            continue
        check_fingerprint(artifact, model, _file(config, spec.name))
        if recorded_template(artifact.metadata) != template:
            log.warning("the arm %s was optimised in another template than the one all arms stand in here", spec.name)
        text = artifact.metadata.seed.text
        seeds = seeds_of(config.prompt) if spec.kind == "optimized" else as_texts(text)
        prompts[spec.name] = ArmPrompt(seeds, artifact.prompt.to(model.device))
    return prompts


def _answer(config: EvaluateConfig, arm_set: ArmSet, directory: RunDirectory) -> dict[str, list[list[Answer]]]:
    """Let every arm answer every row; what the log holds already is not computed again."""
    answers, batch_size = AnswerLog(directory.answers), config.evaluation.batch_size
    generation = config.generation
    sampling = Sampling(generation.num_samples, generation.temperature, generation.top_p, generation.seed)
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
            for name, arm in arm_set.arms.items()
        }


def _stop_if_asked(stop: StopRequest, arm: str, output_dir: Path) -> Callable[[], None]:
    def check() -> None:
        if stop.requested:
            raise Stopped(f"a batch of the arm {arm}", output_dir)

    return check
