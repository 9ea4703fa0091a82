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
  embedgrad evaluate server=http://127.0.0.1:8000 artifact=prompt.safetensors arms=[served]
  embedgrad evaluate artifact=prompt.safetensors launch.processes=2

flags:
  --quiet                show nothing while it works, only the results (quiet=true)
  --predict-only         write the answers without grading them (mode=predict-only)
  --regrade              grade the answers in output_dir again, without the model (mode=regrade)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

from embedgrad_cli.commands.evaluation_run import Answered, answer_and_report, run_evaluation
from embedgrad_cli.commands.regrade import read_digests
from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import EvaluateConfig, with_effect
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, load_tokenizer
from embedgrad_cli.core.passes.engine import OWN, Engine
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.vllm_decoder import VllmEngine
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.core.prompt.soft_prompt import measure_drift
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.evaluation.answer_log import AnswerLog, Progress
from embedgrad_cli.evaluation.answers import answer_arms
from embedgrad_cli.evaluation.arms import ArmPrompt, ArmSet, build_arms
from embedgrad_cli.evaluation.digests import dated, digests_of
from embedgrad_cli.evaluation.elsewhere import measure_elsewhere
from embedgrad_cli.evaluation.outcomes import Outcome
from embedgrad_cli.evaluation.overlap import check_overlap
from embedgrad_cli.evaluation.results import results_of
from embedgrad_cli.evaluation.saved_prompts import arm_prompts, check_artifacts, file_of, load_artifacts
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.parallel.ranks import Ranks, check_same
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.results_record import Measured, Overlap, RenderedArms, Results
from embedgrad_cli.storage.run_digests import RunDigests, check_digests, warn_unchecked
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Splits


def run(config: EvaluateConfig) -> float | None:
    """Evaluate, or resume, or report that the evaluation in `output_dir` is finished.

    Returns: the accuracy of the arm `optimized`, or else of the first that is not the baseline; None if nothing was
    graded. Of several processes the first one returns it, the others None.

    Raises:
        ArtifactError: an artifact cannot be read or is not for this model.
        DataError: a row that is to be tested trained or selected an artifact (see `task.overlap`).
        UserError: `output_dir` holds a run with other settings, or on other data or another model, or another process
            is at work in it.
        Stopped: asked to stop (Ctrl-C, SIGTERM, SIGHUP); the answers so far are kept.
        EndedElsewhere: in an evaluation of several processes, another one has ended it and says why.
    """
    launch = config.launch
    with joined(launch.processes, config.device, launch.tensor_parallel) as ranks:
        output_dir, *_ = ranks.gather(lambda: config.output_dir)  # its name may be the time at which a process began
        config = replace(config, output_dir=output_dir)
        return run_evaluation(config, partial(_evaluate, config, ranks), partial(_check_done, config), ranks)


@dataclass(frozen=True)
class _Evaluation:
    """What is to be answered, by which arms, and what the run's files are to say of it."""

    config: EvaluateConfig
    artifacts: dict[str, Artifact]
    splits: Splits
    overlap: Overlap | None
    model: LanguageModel
    digests: RunDigests | None
    arm_set: ArmSet
    engine: Engine


def _evaluate(config: EvaluateConfig, ranks: Ranks, directory: RunDirectory, run_log: RunLog) -> float | None:
    job = ranks.together(lambda: _prepare(config, directory, ranks))
    check_same(ranks, _facts(job))
    if ranks.is_first:
        _begin(job, directory, run_log)
    generation, arm_set = config.generation, job.arm_set
    if config.mode == "predict-only":
        _keep_measured(job, directory, ranks)
    sampling = Sampling(generation.num_samples, generation.temperature, generation.top_p, generation.seed)

    def answer(log: AnswerLog, progress: Callable[[str, int], Progress]) -> Answered:
        how = (arm_set, config.task, config.evaluation.batch_size, log, progress, sampling, ranks)
        with job.engine.running() as engine:
            return answer_arms(*how, decoder_of=engine.decoder)

    return answer_and_report(config, directory, arm_set.rows, answer, partial(_results, job), ranks)


def _begin(job: _Evaluation, directory: RunDirectory, run_log: RunLog) -> None:
    """Write what is known before the first answer; not before everything the user gave has been looked at."""
    directory.create(job.digests)
    run_log.write_to(directory.log)
    if job.overlap:
        write_json(directory.overlap, job.overlap)
    write_json(directory.rendered, RenderedArms(arms=job.arm_set.rendered))


def _keep_measured(job: _Evaluation, directory: RunDirectory, ranks: Ranks) -> None:
    """Write what a later grading cannot measure, which has no model."""
    if ranks.is_first or ranks.joins_first:
        measured = _measured(job)
        if ranks.is_first:
            write_json(directory.measured, measured)


def _facts(job: _Evaluation) -> dict[str, str]:
    """What all processes have to have in common; the rows and prompts are in what each arm reads."""
    read = {name: arm.prompt_hashes() for name, arm in job.arm_set.arms.items()}
    return {
        "configuration": json.dumps(with_effect(asdict(job.config)), sort_keys=True),
        "model, tokenizer or template": json.dumps(job.digests.to_json() if job.digests else None),
        "set of rows or prompts": hashlib.sha256(json.dumps(read).encode()).hexdigest(),
    }


def _engine(config: EvaluateConfig, model: LanguageModel, arm_set: ArmSet) -> Engine:
    if config.engine is None:
        return OWN
    longest = max(len(example.tokens) for arm in arm_set.arms.values() for example in arm.examples)
    return VllmEngine(model, config.model, longest + config.task.max_new_tokens, config.engine_args or {})


def _prepare(config: EvaluateConfig, directory: RunDirectory, ranks: Ranks) -> _Evaluation:
    """Load everything and check that it goes together, and with what a stopped run began with."""
    artifacts = load_artifacts(config)
    config, splits = load_for(config)
    by_file = {file_of(config, arm): artifact for arm, artifact in artifacts.items()}
    rows, overlap = check_overlap(splits, config.split, by_file, config.task.overlap)
    resumes = directory.config.exists()
    before = read_digests(directory) if resumes else None
    has_day = config.model.chat_template_date is not None
    config = replace(config, model=dated(config.model, before))
    device = pick_device(ranks.device(config.device), is_trusted=config.device != "auto")
    model = load_model(config.model, device, config.launch)
    template = shown_template(config, splits)
    check_artifacts(config, artifacts, model, template, has_day)
    prompts = arm_prompts(config, artifacts)
    now = replace(_digests(config, model.model_tokenizer, splits, prompts), dtype=model.dtype_name)
    digests: RunDigests | None = now
    if resumes:
        digests = check_digests(before, now, directory.path)
    arm_set = build_arms(rows, model, template, config.task, prompts)
    engine = _engine(config, model, arm_set)
    return _Evaluation(config, artifacts, splits, overlap, model, digests, arm_set, engine)


def _results(job: _Evaluation, outcomes: Mapping[str, list[list[Outcome]]]) -> Results:
    config, arm_set = job.config, job.arm_set
    results = results_of(
        outcomes,
        arm_set.rows,
        config.task,
        job.splits,
        split=config.split,
        num_skipped=len(arm_set.skipped),
        overlap=job.overlap,
        rendered=arm_set.rendered,
        model=job.model.path,
        baseline=config.baseline,
        breakdown=config.evaluation.breakdown,
    )
    return _measured(job).added_to(replace(results, digests=job.digests))


def _measured(job: _Evaluation) -> Measured:
    config, arm_set = job.config, job.arm_set
    of_all = Measured(slow_arms=arm_set.slow_arms, engine=job.engine.record)
    optimized = job.artifacts.get("optimized")
    if optimized is None:
        return of_all
    template = shown_template(config, job.splits)
    shares_trunk = arm_set.arms["optimized"].slow_because is None
    return replace(
        of_all,
        artifact=config.artifact,
        validation=optimized.metadata.metrics.validation,
        drift=measure_drift(optimized.prompt, job.model),
        elsewhere=measure_elsewhere(optimized.prompt, job.model, template, seeds_of(config.prompt), shares_trunk),
    )


def _check_done(config: EvaluateConfig, before: RunDigests | None, directory: RunDirectory) -> None:
    """Refuse an `output_dir` whose answers were given to other rows, by another model or with other prompts."""
    if before is None:
        warn_unchecked(directory.path)
        return
    config, splits = load_for(replace(config, model=dated(config.model, before)))
    prompts = arm_prompts(config, load_artifacts(config))
    check_digests(before, _digests(config, load_tokenizer(config.model), splits, prompts), directory.path)


def _digests(
    config: EvaluateConfig, known: ModelTokenizer, splits: Splits, prompts: dict[str, ArmPrompt]
) -> RunDigests:
    template = shown_template(config, splits)
    rows = dict.fromkeys(prompts, splits.rows_of(config.split))
    return digests_of(config.model, known, template, splits, rows, prompts)
