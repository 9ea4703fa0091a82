"""The file of answers to training rows: rounds are whole, and what a stopped one had is read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.training_answers import AnsweredRow, TrainingAnswer, TrainingAnswers

ANSWER = TrainingAnswer(
    output='3 apples\u2028"so"\x85\n#### 3', ids=[5, 7], ending="stop", extracted=None, correct=True, kept=True
)
ROWS = [AnsweredRow(round=1, id=f"train:{i}", prompt_hash="ab", answers=[ANSWER, ANSWER][:i]) for i in range(3)]


@pytest.fixture
def files(tmp_path: Path) -> TrainingAnswers:
    return TrainingAnswers(tmp_path / "targets.jsonl", tmp_path / "targets.partial.jsonl")


def test_rounds_are_read_as_they_were_written(files: TrainingAnswers) -> None:
    second = [replace(row, round=2) for row in ROWS]
    assert files.finished() == files.unfinished(1) == []
    files.add(ROWS[:2])
    files.add(ROWS[2:])
    assert files.unfinished(1) == ROWS
    assert files.unfinished(2) == []
    files.finish(1, ROWS)
    files.finish(2, second)
    assert files.finished() == [*ROWS, *second]
    assert not files.partial.exists()


def test_a_round_that_is_made_again_ends_those_after_it(files: TrainingAnswers) -> None:
    for number in (1, 2, 3):
        files.finish(number, [replace(row, round=number) for row in ROWS])
    files.finish(2, [replace(ROWS[0], round=2)])
    assert files.finished() == [*ROWS, replace(ROWS[0], round=2)]


@pytest.mark.parametrize("tail", [b'{"round": 1, "id', b'{"round": 1}\n', b"\xff\xfe\n"])
def test_a_line_that_is_half_there_is_cut_off(files: TrainingAnswers, tail: bytes) -> None:
    files.add(ROWS)
    whole = files.partial.read_bytes()
    files.partial.write_bytes(whole + tail)
    assert files.unfinished(1) == ROWS
    assert files.partial.read_bytes() == whole


def test_a_line_whose_end_was_not_written_is_no_line(files: TrainingAnswers) -> None:
    """What comes next would stand on the same line, and both would be lost at the next reading."""
    files.add(ROWS)
    files.partial.write_bytes(files.partial.read_bytes().removesuffix(b"\n"))
    assert files.unfinished(1) == ROWS[:-1]
    files.add(ROWS[-1:])
    assert files.unfinished(1) == ROWS


@pytest.mark.parametrize("line", ['{"round": 1}', "nonsense"])
def test_a_damaged_file_is_named_with_its_line(files: TrainingAnswers, line: str) -> None:
    files.finish(1, ROWS)
    with files.whole.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"targets\.jsonl, line 4 cannot be"):
        files.finished()
