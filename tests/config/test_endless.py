"""Settings without an end, which YAML can write in a line, are said in a sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedgrad_cli.config import compose
from embedgrad_cli.config.compose import Request, check_line

LEVELS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
DOUBLED = "".join(f'  x{n}: "${{task.labels.x{n - 1}}}${{task.labels.x{n - 1}}}"\n' for n in range(1, 60))


@pytest.mark.parametrize(
    "content",
    ["defaults: [mine]\n", "name: &a [*a]\n", f"l0: &l0 [x, x]\n{LEVELS}", "name: " + "[" * 500 + "]" * 500],
    ids=["its own defaults", "itself", "a billion", "deep"],
)
@pytest.mark.parametrize("words", [["task=mine"], ["--config-name=task/mine"]])
def test_a_file_of_ones_own(words: list[str], content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "SECONDS", 1.0)
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text(content)
    name = words[0].partition("--config-name=")[2] or None
    line = check_line(Request("optimize", [] if name else words, str(tmp_path), name))
    assert line.config is None
    assert "mine.yaml: " in "".join(line.problems)


@pytest.mark.parametrize("content", [b"\xdc: 1\n", b"a: \x00\n", b"a: [\n", b"null: 1\n"])
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_bytes(content)
    (problem,) = check_line(Request("optimize", ["task=mine"], str(tmp_path))).problems
    assert problem.count("mine.yaml") == 1


def test_another_broken_file_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_bytes(b"\xdc: [\n")
    line = check_line(Request("optimize", ["model=none-such", "+task.split.x.y=${a"], str(tmp_path)))
    assert line.problems
    assert not any("mine.yaml" in problem for problem in line.problems)


def test_a_key_that_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text("1e3: x\n")
    line = check_line(Request("optimize", ["task=mine"], str(tmp_path)))
    assert any(problem.startswith("task.1000.0: there is no such setting") for problem in line.problems)


def test_interpolations_of_interpolations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "SECONDS", 1.0)
    (tmp_path / "task").mkdir()
    (tmp_path / "task/mine.yaml").write_text(f"labels:\n  x0: twice\n{DOUBLED}")
    line = check_line(Request("optimize", ["task=mine"], str(tmp_path)))
    assert any("too often" in problem for problem in line.problems)


def test_a_deep_word() -> None:
    line = check_line(Request("optimize", ["task.choices=" + "[" * 2000 + "]" * 2000]))
    assert any("task.choices" in problem for problem in line.problems)
