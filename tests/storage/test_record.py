"""Records in jsonl files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import write_json_lines
from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class Words(Record):
    text: str


@pytest.mark.parametrize("text", ["plain", "\u2028", "\u2029", "\x85", "\x1c", "\r\n", "\x0b\x0c", '"\\'])
def test_any_text_is_one_line(text: str, tmp_path: Path) -> None:
    rows = [Words(text=f"{text}{number}{text}") for number in range(3)]
    write_json_lines(tmp_path / "file.jsonl", rows)
    assert Words.read_lines(tmp_path / "file.jsonl") == rows


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text('{"text": "a"}\n{"words": "b"}\n')
    with pytest.raises(UserError, match=r"file\.jsonl, line 2"):
        Words.read_lines(tmp_path / "file.jsonl")


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 5000, "", "\x00", '{"text": "\\ud8"}'])
def test_what_json_cannot_read_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(UserError, match=r"file\.jsonl, line 2"):
        Words.read_lines(tmp_path / "file.jsonl")
    (tmp_path / "file.json").write_text(line)
    with pytest.raises(UserError, match=r"file\.json"):
        Words.read(tmp_path / "file.json")
