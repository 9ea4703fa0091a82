from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.run_directory import RunDirectory, read_settings


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


@pytest.mark.parametrize("broken", [b'" "', b"{}", b"5", b'{"step": "x"}', b"\xcb", b"[" * 100_000, b'{"step": 2, "lo'])
def test_metrics_end_where_they_are_broken(broken: bytes, tmp_path: Path) -> None:
    """A run goes on from its checkpoint; what it has of its metrics is no reason to end in a traceback."""
    directory = RunDirectory(tmp_path, {})
    directory.metrics.write_bytes(b'{"step": 1, "loss": 0.5}\n' + broken + b"\n")
    directory.keep_metrics_up_to(3)
    assert directory.metrics.read_bytes() == b'{"step": 1, "loss": 0.5}\n'


@pytest.mark.parametrize("content", ["seed: 0\ngeneration: {}\n", "generation: 5\ntask: [a]\n", "optimizer: null\n"])
def test_settings_without_what_they_had_are_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert read_settings(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "content",
    ["a: &a {b: *a}\n", "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))],
    ids=["itself", "a billion"],
)
def test_settings_without_end_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"l0: &l0 [x]\n{content}")
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_settings(tmp_path / "config.yaml")
