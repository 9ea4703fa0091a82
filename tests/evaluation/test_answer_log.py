"""Answers that a killed run left: all that are whole, and no more."""

from __future__ import annotations

from pathlib import Path

from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog


def answers(*ids: str) -> list[list[Answer]]:
    return [[Answer(id=name, prompt_hash="p", sample=0, output="x", tokens=1, seconds=0.1)] for name in ids]


def test_a_line_whose_end_was_not_written_is_answered_again(tmp_path: Path) -> None:
    """What comes next would stand on the same line, and both would be lost at the next reading."""
    file = tmp_path / "answers.partial.jsonl"
    AnswerLog(file).add(answers("a", "b"))
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    log = AnswerLog(file)
    assert ("a", "p") in log
    assert ("b", "p") not in log
    log.add(answers("b", "c"))
    assert all((name, "p") in AnswerLog(file) for name in "abc")
