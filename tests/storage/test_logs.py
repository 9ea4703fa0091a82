"""The log of a run that has no room for it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from embedgrad_cli.storage.logs import PACKAGE, RunLog


def test_what_cannot_be_logged_is_lost_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run itself meets the full disk, and says so."""
    (tmp_path / "embedgrad.log").symlink_to("/dev/full")
    with RunLog("info", quiet=True) as log:
        log.write_to(tmp_path / "embedgrad.log")
        logging.getLogger(PACKAGE).info("x" * 100_000)
    assert capsys.readouterr().err == ""
