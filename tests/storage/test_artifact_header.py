"""The header of an artifact, read without torch: what is wrong is named by file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.artifacts import plain_metadata, write_header

from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_header import read_header


def test_header_is_read_without_tensors(tmp_path: Path) -> None:
    metadata = plain_metadata(overrides=["task=mine"])

    assert read_header(write_header(tmp_path / "a.safetensors", metadata)).to_json() == metadata


def test_bad_artifacts_are_told_apart(tmp_path: Path) -> None:
    whole = write_header(tmp_path / "whole", plain_metadata()).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:40])
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("this is a text, not a prompt")
    write_header(tmp_path / "short", plain_metadata(), data=2)
    write_header(tmp_path / "other", None)
    (tmp_path / "labels").write_bytes((22).to_bytes(8, "little") + b'{"__metadata__":"{}" }')
    write_header(tmp_path / "damaged", "{")
    write_header(tmp_path / "deep metadata", "[" * 100_000)
    (tmp_path / "deep").write_bytes((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995)
    write_header(tmp_path / "newer", {"format_version": 99})
    expected = {
        "cut": "truncated",
        "empty": "truncated",
        "text": "not a safetensors file",
        "short": "truncated",
        "other": "not an embedgrad artifact",
        "labels": "not an embedgrad artifact",
        "damaged": "damaged",
        "newer": "Upgrade",
        "deep": "not a safetensors file",
        "deep metadata": "damaged",
        "missing": "no such file",
        ".": "it is a folder",
    }
    for name, words in expected.items():
        with pytest.raises(ArtifactError, match=words):
            read_header(tmp_path / name)


def test_the_file_in_a_folder_is_said_so_that_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a, b").mkdir()
    with pytest.raises(ArtifactError) as refused:
        read_header(tmp_path / "a, b")
    assert str(refused.value).endswith(f"Give the file in it: 'artifact=\"{tmp_path}/a, b/prompt.safetensors\"'.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": {"text": "Think."}}, "key seed.token_ids is missing"),
        ({"seed": {"text": "Think.", "token_ids": [5]}}, "key seed.token_ids[0] is 5, expected was a list"),
        ({"model": None}, "key model is None, expected was a group with the keys path"),
        (
            {"metrics": {"validation": {"accuracy": "high", "loss": 1.0, "step": 2}}},
            "metrics.validation.accuracy is 'high'",
        ),
        (
            {"config": {**plain_metadata()["config"], "train": {"steps": 1.5, "batch_size": 4}}},
            "config.train.steps is 1.5",
        ),
        ({"objective": "reward"}, "key objective is 'reward', and this version knows no such key"),
        ({"seed": 1, "task": 2, "libraries": 3, "split_hash": 4}, "and 1 more"),
    ],
)
def test_a_damaged_or_newer_field_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = write_header(tmp_path / "a.safetensors", plain_metadata(**changes))
    with pytest.raises(ArtifactError) as caught:
        read_header(file)
    assert f"artifact={file}" in str(caught.value)
    assert words in str(caught.value)
