"""Checks of an objective: the task and the training that it suits, and what it needs. No torch, no network."""

from __future__ import annotations

from pathlib import Path

from embedgrad_cli.config.reward import FUNCTION, HOW
from embedgrad_cli.config.schema import OBJECTIVES, ObjectiveConfig, TrainConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.config.teacher import is_artifact, is_text_file

NEEDED = ("samples", "temperature", "keep", "rounds", "unsolved")  # of verified
DRAWN = ("verified", "reward")  # for answers that are generated
# The objectives that read a setting; those of `choice` have values under every objective.
READ_BY = {
    "mask": ("gold", "verified"),
    "samples": ("verified", "reward", "distill"),
    "temperature": ("verified", "reward", "distill"),
    "teacher": ("verified", "distill"),
    "keep": ("verified",),
    "rounds": ("verified",),
    "unsolved": ("verified",),
    "reward": ("reward",),
    "teacher_examples": ("distill",),
    "top": ("distill",),
}


def check_objective(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Whether an objective suits a task, and has what it needs."""
    return [
        *_check_read(objective, task),
        *([] if objective.teacher is None else _check_teacher(objective.teacher)),
        *_check_distill(objective, task),
        *_check_reward(objective, task),
        *_check_choice(objective, task),
        *_check_verified(objective, task),
    ]


def check_training(objective: ObjectiveConfig, train: TrainConfig) -> list[str]:
    """Whether an objective suits the course of the training."""
    return [*_check_rounds(objective, train), *_check_whole_prompt(objective, train)]


def _check_read(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """What is set must be read: a setting of another objective would change nothing."""
    chosen, problems = objective.name or OBJECTIVES[task.kind], []
    for name, readers in READ_BY.items():
        if getattr(objective, name) is not None and chosen not in readers:
            others = [f"objective={reader}" for reader in readers if task.kind == "generation" or reader not in DRAWN]
            instead = f", or give {' or '.join(others)}" if others else ""
            problems.append(f"objective.{name}: objective={chosen} does not read it. Leave it out{instead}.")
    return problems


def _check_choice(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Choices can only be ranked where there are choices."""
    if objective.name != "choice" or task.kind == "choice":
        return []
    return [
        f"objective: choice ranks the choices of a row, but the answers of task {task.name} are generated "
        f"(task.kind={task.kind}). Leave it out, or give objective=gold; where rows have choices, task.kind=choice."
    ]


def _check_teacher(teacher: str) -> list[str]:
    """A file must be there; words may be anything but none."""
    if not teacher.strip():
        return ["objective.teacher: it is empty. Give the words of a prompt, or the name of a file that holds one."]
    if (is_artifact(teacher) or is_text_file(teacher)) and not Path(teacher).expanduser().is_file():
        return [f"objective.teacher: there is no file {teacher!r}. Give an existing one, or the words of a prompt."]
    return []


def _check_distill(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """A teacher is needed; words can have worked examples behind them, vectors cannot; draws must differ."""
    if objective.name != "distill":
        return []
    problems, teacher = [], objective.teacher
    if teacher is None and objective.teacher_examples is None:
        problems.append(
            "objective.teacher: distill needs a prompt whose answers are learnt. Give its words, a .txt or .md file "
            "that holds them, a .safetensors prompt, or objective.teacher_examples=8 for the seed with so many worked "
            "examples."
        )
    if teacher is not None and objective.teacher_examples is not None and is_artifact(teacher):
        problems.append(
            f"objective.teacher_examples: the teacher {teacher} is vectors, which take no worked examples. Leave it "
            "out, or give a text as teacher."
        )
    if (objective.samples or 1) > 1 and (task.kind == "choice" or not objective.temperature):
        why = "rows have choices, and the likeliest is the answer" if task.kind == "choice" else "nothing is drawn"
        mend = "" if task.kind == "choice" else ", or a positive objective.temperature"
        problems.append(f"objective.samples: {objective.samples} answers would be alike, as {why}. Give 1{mend}.")
    return problems


def _check_reward(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Answers must be generated, and must be able to differ."""
    if objective.name != "reward":
        return []
    problems = []
    if task.kind == "choice":
        problems.append(
            f"objective: reward draws answers and grades them, but task {task.name} ranks the choices of a row "
            "(task.kind=choice). Give objective=choice, or objective=gold."
        )
    if objective.samples is None or objective.samples < 2:
        problems.append(
            f"objective.samples: {objective.samples} is not 2 or more, and the reward of an answer is compared with "
            "those of others to its row. Give objective.samples=4."
        )
    if not objective.temperature:
        problems.append(
            f"objective.temperature: at {objective.temperature} all answers to a row are the same, and none is better "
            "than the others. Give objective.temperature=1."
        )
    if objective.reward is not None and not FUNCTION.fullmatch(objective.reward):
        problems.append(f"objective.reward: {objective.reward!r} does not name a function. {HOW}")
    return problems


def _check_whole_prompt(objective: ObjectiveConfig, train: TrainConfig) -> list[str]:
    """Answers are drawn with the whole prompt, so the gradient is that of the whole prompt."""
    if objective.name != "reward" or not train.token_dropout:
        return []
    return [
        "train.token_dropout: objective=reward draws its answers from the whole prompt, and a prompt with tokens left "
        "out would not have given them. Leave it out."
    ]


def _check_verified(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
    """Answers must be generated, be able to differ, and all settings be there."""
    if objective.name != "verified":
        return []
    if task.kind == "choice":
        return [
            f"objective: verified trains on answers that were generated and graded, but those of task {task.name} are "
            "choices (task.kind=choice). Give objective=choice or objective=gold; where answers are generated, "
            "task.kind=generation."
        ]
    missing = [name for name in NEEDED if getattr(objective, name) is None]
    if missing:
        return [
            f"objective.{missing[0]}: objective.name=verified needs a value here. Give objective=verified, which has "
            "one for each of its settings."
        ]
    if objective.temperature == 0 and (objective.samples or 1) > 1:
        return [
            f"objective.samples: {objective.samples} answers at objective.temperature=0 are all the same. Give a "
            "temperature, for instance objective.temperature=0.7, or objective.samples=1."
        ]
    return []


def _check_rounds(objective: ObjectiveConfig, train: TrainConfig) -> list[str]:
    """Each round has a step."""
    if objective.name != "verified" or (objective.rounds or 1) <= max(train.steps, 1):
        return []
    return [
        f"objective.rounds: {objective.rounds} rounds cannot each have a step of train.steps={train.steps}. Give fewer "
        "rounds or more steps."
    ]
