"""Files that are written whole or not at all, and only where they were meant to be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from embedgrad_cli.storage.files import write_atomically


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    """Whoever may write into an output folder could otherwise have a run write over any file of its user."""
    precious, link = tmp_path / "precious", tmp_path / "results.json"
    precious.write_text("precious")
    link.symlink_to(precious)
    write_atomically(link, b"results")
    assert precious.read_text() == "precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"results"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["precious", "results.json"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_whom_the_umask_keeps_out_cannot_read_it(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "samples.jsonl", b"somebody's rows")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "samples.jsonl").stat().st_mode) == mode
