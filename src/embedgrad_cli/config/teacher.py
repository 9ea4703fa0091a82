"""What `objective.teacher` names: a text, a file that holds one, or a saved prompt. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from embedgrad_cli.config.arm_spec import SUFFIX
from embedgrad_cli.config.schema import ObjectiveConfig, TaskConfig
from embedgrad_cli.errors import UserError

TEXT_FILES = (".txt", ".md")


def is_artifact(teacher: str) -> bool:
    return teacher.endswith(SUFFIX)


def is_text_file(teacher: str) -> bool:
    """Whether it is the name of a file: one line that ends like one."""
    return teacher.endswith(TEXT_FILES) and "\n" not in teacher


def teacher_text(teacher: str) -> str:
    """The words of a teacher that is no artifact, without white space around them.

    Raises:
        UserError: its file cannot be read, or is empty.
    """
    if not is_text_file(teacher):
        return teacher.strip()
    try:
        text = Path(teacher).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(
            f"objective.teacher: the file {teacher} cannot be read: {why}. Give a text file, a .safetensors prompt, or "
            "the words themselves: 'objective.teacher=\"Think first.\"'."
        ) from error
    if not text:
        raise UserError(f"objective.teacher: the file {teacher} is empty. Give one that holds a prompt.")
    return text


def check_teacher(teacher: str) -> list[str]:
    """A file must be there; words may be anything but none."""
    if not teacher.strip():
        return ["objective.teacher: it is empty. Give the words of a prompt, or the name of a file that holds one."]
    if (is_artifact(teacher) or is_text_file(teacher)) and not Path(teacher).expanduser().is_file():
        return [f"objective.teacher: there is no file {teacher!r}. Give an existing one, or the words of a prompt."]
    return []


def check_distill(objective: ObjectiveConfig, task: TaskConfig) -> list[str]:
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
