"""`embedgrad evaluate`: a saved prompt, its seed and no prompt at all, on the same rows of any task."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import yaml

from embedgrad_cli import report
from embedgrad_cli.arms import Examination, run_arms, sample_rows, summarise
from embedgrad_cli.core.artifact import Artifact, check_fingerprint, load_artifact
from embedgrad_cli.core.fewshot import with_examples
from embedgrad_cli.core.forward import can_share_trunk
from embedgrad_cli.core.model import LanguageModel, load_model, pick_device
from embedgrad_cli.core.soft_prompt import SoftPrompt, measure_drift
from embedgrad_cli.errors import ArtifactError, UserError
from embedgrad_cli.run_directory import log_to, start_logging, write_atomically, write_json, write_json_lines
from embedgrad_cli.schema import EvaluateConfig
from embedgrad_cli.tasks.data import load, rows_hash


def run(config: EvaluateConfig) -> float:
    """Evaluate an artifact. Returns: the accuracy of the arm `optimized`.

    Raises:
        ArtifactError: the artifact cannot be read or is not for this model.
        UserError: `output_dir` holds another evaluation already.
    """
    artifact = load_artifact(Path(config.artifact))
    output_dir = Path(config.output_dir)
    if (output_dir / "results.json").exists():
        raise UserError(
            f"output_dir={output_dir} already holds results.json. Give another folder; nothing was changed."
        )
    log_lines = start_logging(config.log_level)
    splits = load(config.task, config.seed)
    model = load_model(config.model, pick_device(config.device))
    check_fingerprint(artifact, model, config.artifact)
    optimized = artifact.prompt.to(model.device)
    seed = SoftPrompt(optimized.slots, optimized.seed)
    rows = getattr(splits, config.split)
    template = with_examples(config.template, splits.fewshot, config.task.fewshot_style)
    examination = Examination(rows, model, template, config.prompt, config.task)
    _check_slots(artifact, examination, config, model)
    output_dir.mkdir(parents=True, exist_ok=True)
    log_to(output_dir / "embedgrad.log", log_lines)
    write_atomically(output_dir / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False).encode())
    examination.shares_trunk = can_share_trunk(model, examination.prompted, seed)
    with report.TestDisplay() as display:
        prompts = {"none": None, "seed": seed, "optimized": optimized}
        outcomes = run_arms(examination, prompts, config.evaluation.batch_size, display.arm)
    results = {
        "task": config.task.name,
        "split": config.split,
        "num_examples": len(examination.rows),
        "num_skipped": len(examination.skipped),
        "model": model.path,
        "artifact": config.artifact,
        **summarise(outcomes, "seed", "optimized"),
        "drift": measure_drift(optimized, model).to_dict(),
        "split_hash": splits.hash,
        "test_hash": rows_hash(examination.rows),
        "data": splits.report,
    }
    write_json_lines(output_dir / "samples.jsonl", sample_rows(outcomes, examination.rows))
    write_json(output_dir / "results.json", results)
    report.results(results, examination.rows, outcomes, output_dir)
    return results["arms"]["optimized"]["accuracy"]


def _check_slots(artifact: Artifact, examination: Examination, config: EvaluateConfig, model: LanguageModel) -> None:
    """The template may differ from the artifact's, but it must leave the seed's tokens as they were."""
    if examination.slots != artifact.prompt.slots:
        was, now = (
            [model.tokenizer.convert_ids_to_tokens(list(ids)) for ids in slots.ids]
            for slots in (artifact.prompt.slots, examination.slots)
        )
        raise ArtifactError(
            f"artifact={config.artifact} holds vectors for the tokens {was}, but in this template and with this "
            f"prompt.text the slots hold {now}. Use the artifact's own template and prompt."
        )
