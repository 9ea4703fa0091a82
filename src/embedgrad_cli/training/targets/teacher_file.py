"""A teacher's answers in a file of the run directory: tensors in `.safetensors`, the rows' ids as JSON with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from embedgrad_cli.core.objectives import SoftTargets
from embedgrad_cli.errors import ArtifactError, UserError
from embedgrad_cli.storage.files import write_atomically

CONTENT = "embedgrad_teacher"  # the metadata key


@dataclass(frozen=True)
class TeacherAnswer:
    """The tokens of one answer, and the teacher's likeliest tokens in each place of it."""

    tokens: tuple[int, ...]
    soft: SoftTargets


def save_answers(path: Path, answers: Mapping[str, list[TeacherAnswer]], read: str) -> None:
    """Write the answers to each row, whole or not at all: `tokens` `[N]`, `lengths` `[answers]`, and `ids` and
    `likelihoods` `[N, k]`, for N tokens in all.

    Args:
        read: a digest of what the teacher has read.
    """
    flat = [answer for of_row in answers.values() for answer in of_row]
    tensors = {
        "tokens": torch.tensor([token for answer in flat for token in answer.tokens], dtype=torch.int32),
        "lengths": torch.tensor([len(answer.tokens) for answer in flat], dtype=torch.int32),
        "ids": torch.cat([answer.soft.ids for answer in flat]).to(torch.int32),
        "likelihoods": torch.cat([answer.soft.likelihoods for answer in flat]),
    }
    content = {"read": read, "rows": [row for row, of_row in answers.items() for _ in of_row]}
    write_atomically(path, save({key: t.contiguous() for key, t in tensors.items()}, {CONTENT: json.dumps(content)}))


def load_answers(path: Path, read: str) -> dict[str, list[TeacherAnswer]]:
    """The answers to each row.

    Raises:
        ArtifactError: the file is damaged.
        UserError: the teacher has read something else than it would now.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[CONTENT])
            tensors = {key: file.get_tensor(key) for key in ("tokens", "lengths", "ids", "likelihoods")}
        lengths = tensors["lengths"].tolist()
        parts = [tensors[key].split(lengths) for key in ("tokens", "ids", "likelihoods")]
        answers = dict[str, list[TeacherAnswer]]()
        for row, tokens, ids, likelihoods in zip(content["rows"], *parts, strict=True):
            answer = TeacherAnswer(tuple(tokens.tolist()), SoftTargets(ids.long(), likelihoods))
            answers.setdefault(row, []).append(answer)
        before = content["read"]
    except Exception as error:
        raise ArtifactError(
            f"the teacher's answers in {path} cannot be used: {error}. Delete it to let the teacher answer "
            "again, or give another output_dir."
        ) from error
    if before != read:
        raise UserError(
            f"objective.teacher: what the teacher reads is not what it read when {path} was written: its file has "
            "changed, or the training rows have. Put back what it was, or give another output_dir; nothing was changed."
        )
    return answers
