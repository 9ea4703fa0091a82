"""Checks of a config that concern arms, sampling and breakdowns. No torch, no network."""

from __future__ import annotations

from embedgrad_cli.config.arm_spec import ArmSpec, parse_arm
from embedgrad_cli.config.fields import num_prompts
from embedgrad_cli.config.schema import EvaluateConfig, EvaluationConfig, GenerationConfig
from embedgrad_cli.config.task_schema import TaskConfig


def check_generation(generation: GenerationConfig, task: TaskConfig) -> list[str]:
    """Several answers to a question must be able to differ."""
    sampled = generation.num_samples > 1 or generation.temperature > 0
    if task.kind == "choice" and sampled:
        return ["generation: task.kind=choice scores its labels, and nothing is drawn. Use task.kind=generation."]
    if generation.num_samples > 1 and generation.temperature == 0:
        return [
            f"generation.num_samples: {generation.num_samples} answers at generation.temperature=0 are all the same. "
            "Give a temperature, for instance generation.temperature=0.7."
        ]
    return []


def check_breakdown(evaluation: EvaluationConfig, task: TaskConfig) -> list[str]:
    """What results are broken down by must be kept with the rows."""
    kept = task.keep or []
    missing = [name for name in evaluation.breakdown or [] if name not in kept]
    if not missing:
        return []
    wanted = ",".join([*kept, *missing])
    return [
        f"evaluation.breakdown: {', '.join(missing)} is not among the fields that task.keep names ({kept or 'none'}). "
        f"Add task.keep=[{wanted}]."
    ]


def check_arms(config: EvaluateConfig) -> list[str]:
    """Every arm must be one, be there once, and have what it needs."""
    problems, names = [], list[str]()
    for item in config.arms:
        try:
            arm = parse_arm(item)
        except ValueError as error:
            problems.append(f"arms: {error}")
            continue
        if arm.name in names:
            problems.append(f"arms: {arm.name!r} is there twice.")
        names.append(arm.name)
        problems += _lacking(arm, config)
    if not config.arms:
        problems.append("arms: the list is empty. Name at least one: arms=[none,seed,optimized].")
    if config.baseline is not None and config.baseline not in names and not problems:
        problems.append(f"baseline: {config.baseline!r} is not among the arms, which are {', '.join(names)}.")
    return problems


def _lacking(arm: ArmSpec, config: EvaluateConfig) -> list[str]:
    """What an arm needs and does not have. An artifact that is missing would also have brought the seed."""
    lacks_artifact = config.artifact is None and "optimized" in config.arms
    if arm.kind == "optimized" and lacks_artifact:
        return [
            f"artifact: it has no value yet, and arms=[{', '.join(config.arms)}] asks for its vectors. Give "
            "artifact=FILE, or arms without optimized: 'arms=[none,text:\"Think first.\"]'."
        ]
    has_text = config.prompt is None or config.prompt.text is not None
    if arm.kind in ("seed", "optimized") and not (lacks_artifact or has_text):
        return [f'arms: {arm.kind} needs prompt.text, which has no value. Give prompt.text="…" or prompt=….']
    if arm.kind == "text" and config.template is not None and num_prompts(config.template) > 1:
        return [f"arms: {arm.name!r} is one text, but the template has a place for several prompts."]
    return []
