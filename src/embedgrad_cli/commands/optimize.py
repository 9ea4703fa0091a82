"""Train the embeddings of a prompt on a task and compare them with the text on held-out examples.

examples:
  embedgrad optimize
  embedgrad optimize task=sst2 task.data_dir=DIR prompt=sentiment model=local model.path=DIR
  embedgrad optimize prompt=custom 'prompt.text="Think first, then answer."' train.steps=200
  embedgrad optimize --multirun optimizer.lr=0.01,0.05,0.2
  embedgrad optimize launch.processes=2
  embedgrad optimize task=math model=qwen2.5-math-1.5b --cfg job
  embedgrad optimize task=math model=qwen2.5-math-1.5b --dry-run

flags:
  --quiet                show nothing while it works, only the results (quiet=true)
  --dry-run              what the run would take: rows, tokens, operations, memory; loads no weights, writes nothing.
                         With =time also how long: loads the model, times one step and one batch of answers
  --memory GB            in a dry run: of a device that need not be here (device=cuda)
  --tflops N             in a dry run: hours on a device that is taken to do N x 10^12 operations per second
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.reward import reward_function
from embedgrad_cli.config.schema import WITHOUT_EFFECT, OptimizeConfig, with_effect
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, load_tokenizer
from embedgrad_cli.core.passes.engine import OWN, Engine
from embedgrad_cli.core.passes.vllm_decoder import VllmEngine
from embedgrad_cli.core.text.encoding import Renderings
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import ArmPrompt
from embedgrad_cli.evaluation.digests import dated, digests_of
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.parallel.ranks import Ranks, check_same
from embedgrad_cli.reports.write import finish
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_digests import RunDigests, check_digests, warn_unchecked
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.run_lock import lock_run
from embedgrad_cli.storage.stopwatch import Stopwatch
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Splits
from embedgrad_cli.terminal import report
from embedgrad_cli.tracking.tracked import tracked
from embedgrad_cli.training.checkpoint import read_digests
from embedgrad_cli.training.final_test import run_final_test
from embedgrad_cli.training.trainer import Training


def run(
    config: OptimizeConfig,
    overrides: Sequence[str] | None = None,
    on_validation: Callable[[int, float], None] | None = None,
) -> float:
    """Optimise, or resume, or report that the run in `output_dir` is finished.

    Args:
        overrides: the command line that gave the config; the artifact records it.
        on_validation: is told the step and the accuracy of each validation, once its checkpoint is written; what it
            raises ends the run, which could go on from there.

    Returns: the best validation accuracy, for sweepers.

    Raises:
        UserError: `output_dir` holds a run with other settings, or on other data or another model, or another process
            is at work in it.
        Stopped: asked to stop (Ctrl-C, SIGTERM, SIGHUP); what was done is kept.
        EndedElsewhere: in a run of several processes, another one has ended it and says why.
    """
    launch = config.launch
    with joined(launch.processes, config.device, launch.tensor_parallel) as ranks, ExitStack() as stack:
        output_dir, *_ = ranks.gather(lambda: config.output_dir)  # its name may be the time at which a process began
        config = replace(config, output_dir=output_dir)
        directory = ranks.together(lambda: _open(config, ranks, stack))
        with RunLog(config.log_level, quiet=not ranks.is_first) as log:
            if directory.is_finished:
                with tracked(directory.path, config.tracker, ranks.is_first):  # what the tracker does not have yet
                    return _finished(config, directory) if ranks.is_first else 0.0
            training = ranks.together(lambda: _prepare(config, directory, overrides, ranks))
            check_same(ranks, _facts(config, training))
            if ranks.is_first:
                directory.create()  # not before everything the user gave has been looked at
                log.write_to(directory.log)
            with tracked(directory.path, config.tracker, ranks.is_first):
                with training.engine.running():
                    training.fit(on_validation)
                    accuracy = run_final_test(training)
                if ranks.is_first:
                    finish(directory, config.report)
            return accuracy


def _open(config: OptimizeConfig, ranks: Ranks, stack: ExitStack) -> RunDirectory:
    """The run directory, in which the first rank alone writes: until the stack ends, it has the lock."""
    if ranks.is_first:
        stack.enter_context(lock_run(Path(config.output_dir)))
    return RunDirectory(Path(config.output_dir), asdict(config), free=WITHOUT_EFFECT)


def _facts(config: OptimizeConfig, training: Training) -> dict[str, str]:
    vectors = training.prompt.vectors.detach().cpu().contiguous().numpy().tobytes()
    return {
        "configuration": json.dumps(with_effect(asdict(config)), sort_keys=True),
        "split of the data": training.splits.hash,
        "model, tokenizer or template": json.dumps(training.digests.to_json() if training.digests else None),
        "checkpoint": f"{training.state.step} {hashlib.sha256(vectors).hexdigest()}",
    }


def _prepare(
    config: OptimizeConfig, directory: RunDirectory, overrides: Sequence[str] | None, ranks: Ranks
) -> Training:
    if config.objective.reward is not None:
        reward_function(config.objective.reward)  # what is wrong with it is said before the model is loaded
    stopwatch = Stopwatch()
    stopwatch.begin("reading")
    config, splits = load_for(config)
    stopwatch.begin("loading")
    resumes = directory.checkpoint.exists()
    before = read_digests(directory.checkpoint) if resumes else None
    told = dated(config.model, before)
    device = pick_device(ranks.device(config.device), is_trusted=config.device != "auto")
    model = load_model(told, device, config.launch)
    stopwatch.begin("encoding")
    known = model.model_tokenizer
    template = shown_template(config, splits)
    seed = PromptTemplate(template, list(seeds_of(config.prompt)), known.tokenizer, known.is_chat)
    renderings = Renderings(seed)  # the digests read all rows that training reads
    now = replace(_digests(replace(config, model=told), known, splits, renderings), dtype=model.dtype_name)
    digests: RunDigests | None = now
    if resumes:
        digests = check_digests(before, now, directory.path)
    stopwatch.begin("loading")  # to import vLLM takes its time too
    engine = _engine(config, model, splits, renderings)
    return Training(config, model, splits, directory, overrides, digests, renderings, stopwatch, ranks, engine)


def _engine(config: OptimizeConfig, model: LanguageModel, splits: Splits, renderings: Renderings) -> Engine:
    """What answers in validation and test, and training rows where answers are trained on."""
    if config.engine is None:
        return OWN
    rows = [*splits.train, *splits.validation, *splits.test]
    longest = max(len(tokens) for tokens, _ in renderings.tokens_of(rows))
    length = longest + config.task.max_new_tokens
    return VllmEngine(model, config.model, length, config.engine_args or {}, shares_device=True)


def _finished(config: OptimizeConfig, directory: RunDirectory) -> float:
    """Say what came out, if the run is one of this data and this model. One that was killed at its end is completed."""
    results = Results.read(directory.results)
    if results.digests is None:
        warn_unchecked(directory.path)
    else:
        config, splits = load_for(replace(config, model=dated(config.model, results.digests)))
        check_digests(results.digests, _digests(config, load_tokenizer(config.model), splits), directory.path)
    if directory.was_killed_at_its_end:
        finish(directory, config.report)
    report.already_finished(directory.path, results)
    return results.selection_accuracy


def _digests(
    config: OptimizeConfig, known: ModelTokenizer, splits: Splits, renderings: Renderings | None = None
) -> RunDigests:
    template = shown_template(config, splits)
    prompts = {"none": ArmPrompt(), "seed": ArmPrompt(seeds_of(config.prompt))}
    rows = {"none": splits.test, "seed": [*splits.train, *splits.validation, *splits.test]}
    return digests_of(config.model, known, template, splits, rows, prompts, renderings)
