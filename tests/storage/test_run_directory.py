from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.run_directory import RunDirectory


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output_dir="):
        RunDirectory(tmp_path / "file", {})


def test_only_settings_that_change_the_result_must_be_the_same(tmp_path: Path) -> None:
    RunDirectory(tmp_path, {"seed": 1, "output_dir": "a", "train": {"steps": 3}}).create()
    RunDirectory(tmp_path, {"seed": 1, "output_dir": "b", "train": {"steps": 3}}, free=["output_dir"])
    with pytest.raises(UserError, match=r"seed=2 \(was 1\); train.steps=4 \(was 3\)"):
        RunDirectory(tmp_path, {"seed": 2, "output_dir": "a", "train": {"steps": 4}})
