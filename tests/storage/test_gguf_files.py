"""Which GGUF file a path names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from embedgrad_cli.storage.gguf_files import gguf_in, named_gguf, sha256_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_a_file_and_the_folder_that_holds_it_alone_name_the_same(file: Path) -> None:
    (file.parent / "README.md").write_text("A model.")
    assert named_gguf(str(file)) == named_gguf(str(file.parent)) == file


def test_one_of_several_is_named_by_itself_only(file: Path) -> None:
    other = file.rename(file.with_name("A.GGUF"))
    file.write_bytes(b"GGUF")
    assert gguf_in(file.parent) == [other, file]
    assert named_gguf(str(file.parent)) is None
    assert named_gguf(str(other)) == other


def test_safetensors_in_a_folder_go_first(file: Path) -> None:
    (file.parent / "model.safetensors").write_bytes(b"")
    assert gguf_in(file.parent) == []
    assert named_gguf(str(file.parent)) is None
    assert named_gguf(str(file)) == file


@pytest.mark.parametrize("path", ["embedded:tiny", "Qwen/Qwen2.5-0.5B", "nowhere/tiny.gguf"])
def test_other_paths_name_none(path: str) -> None:
    assert named_gguf(path) is None


def test_the_hash_is_of_the_file_as_it_is_now(file: Path) -> None:
    assert sha256_of(file) == hashlib.sha256(b"GGUF").hexdigest()
    file.write_bytes(b"GGUG")
    os.utime(file, ns=(0, 1))
    assert sha256_of(file) == hashlib.sha256(b"GGUG").hexdigest()
