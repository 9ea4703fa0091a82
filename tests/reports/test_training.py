"""The course of a training, as its report draws it."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedgrad_cli.errors import UserError
from embedgrad_cli.reports.training import read_course


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "lr": \xcb\xd3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1"):
        read_course(tmp_path / "metrics.jsonl")
