"""What `objective.teacher` names: a text, a file that holds one, or a saved prompt. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from embedgrad_cli.config.arm_spec import SUFFIX
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
