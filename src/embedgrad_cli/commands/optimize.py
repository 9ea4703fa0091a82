"""Train the embeddings of a prompt on a task and compare them with the text on held-out examples.

examples:
  embedgrad optimize
  embedgrad optimize task=sst2 task.data_dir=DIR prompt=sentiment model=local model.path=DIR
  embedgrad optimize prompt=custom 'prompt.text="Think first, then answer."' train.steps=200
  embedgrad optimize --multirun optimizer.lr=0.01,0.05,0.2
  embedgrad optimize task=math model=qwen2.5-math-1.5b --cfg job
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.language_model import load_model, pick_device
from embedgrad_cli.storage.files import read_json
from embedgrad_cli.storage.logs import log_to, start_logging
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.tasks.load import load
from embedgrad_cli.terminal import report
from embedgrad_cli.training.trainer import Training


def run(config: OptimizeConfig) -> float:
    """Optimise, or resume, or report that the run in `output_dir` is finished.

    Returns: the best validation accuracy, for sweepers.
    """
    directory = RunDirectory(Path(config.output_dir), asdict(config))
    if directory.is_finished:
        results = read_json(directory.results)
        report.already_finished(directory.path, results)
        return results["validation"]["accuracy"]
    log_lines = start_logging(config.log_level)
    splits = load(config.task, config.seed)
    model = load_model(config.model, pick_device(config.device))
    training = Training(config, model, splits, directory)
    directory.create()  # not before everything the user gave has been looked at
    log_to(directory.log, log_lines)
    training.fit()
    return training.test()
