"""`model.chat_template_kwargs` reaches every rendering of a prompt, from its training to its exports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_clock import read_by
from tests.core.text.test_answer_prefix import QWEN_3
from transformers import AutoTokenizer

from embedgrad_cli.cli.main import main
from embedgrad_cli.storage.artifact_header import read_header

NO_THOUGHTS = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
TOLD = "model.chat_template_kwargs={enable_thinking: false}"
TASK = [
    *("task.name=first-word", "task.kind=choice", 'task.query="{text}"', 'task.target="{label}"'),
    *(
        "task.labels={0: negative, 1: positive}",
        "task.choices=[negative,positive]",
        "task.split.validation=[validation]",
    ),
]
ASKS = [{"role": "user", "content": "apples number 7"}]


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A model whose template thinks unless it is told not to, and writes no thoughts of its own before an answer."""
    shutil.copytree(model_folder, tmp_path / "model")
    template = QWEN_3.replace("{% if m.role == 'assistant' and loop.last %}", "{% if false %}")
    (tmp_path / "model/chat_template.jinja").write_text(template)
    return tmp_path


def chosen(folder: Path) -> list[str]:
    return ["model=local", f"model.path={folder / 'model'}", "template=system", "prompt=sentiment"]


def test_from_optimize_to_exports(folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, line = folder / "run", [*chosen(folder), *TASK, f"task.data_dir={choice_data}"]
    assert main(["optimize", *line, TOLD, "train.steps=1", f"output_dir={run}"]) == 0
    artifact = f"artifact={run / 'prompt.safetensors'}"
    recorded = read_header(run / "prompt.safetensors").settings["model"]
    assert recorded["chat_template_kwargs"] == {"enable_thinking": False}
    assert recorded["chat_template_date"] is None  # this template reads no clock
    assert main(["evaluate", artifact, f"output_dir={folder / 'same'}"]) == 0
    assert read_by(folder / "same") == read_by(run)
    capsys.readouterr()
    thinks = TOLD.replace("false", "true")
    assert main(["evaluate", artifact, thinks, f"output_dir={folder / 'other'}"]) == 0
    other = read_by(folder / "other")
    assert all(not set(hashes) & set(other[arm]) for arm, hashes in read_by(run).items())
    assert "another template" in capsys.readouterr().err
    for format in ("model", "peft"):
        assert main(["export", artifact, f"format={format}", f"output_dir={folder / f'out-{format}'}"]) == 0
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / f"out-{format}")
        told = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
        assert tokenizer.apply_chat_template(ASKS, **told).endswith(NO_THOUGHTS)


def test_tasks_show_renders_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for more in ([], [TOLD]):
        assert main(["tasks", "show", "reviews", *chosen(folder), *more]) == 0
        shown.append(capsys.readouterr().out.count("</think>"))
    assert shown == [0, 4]  # three examples, and the arm none


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("model.chat_template_kwargs={messages: []}", "model.chat_template_kwargs.messages"),
        ("model.chat_template_kwargs={add_generation_prompt: false}", "model.chat_template_kwargs.add_generation"),
        ("model.chat_template_kwargs={a-b: 1}", "model.chat_template_kwargs.a-b"),
        ("model.chat_template_kwargs={enable_thinkng: false}", "model.chat_template_kwargs.enable_thinkng"),
        ("model.chat_template_kwargs=false", "model.chat_template_kwargs"),
        ("model.chat_template_date=tomorrow", "model.chat_template_date"),
    ],
)
def test_what_no_template_can_be_told_is_named(
    setting: str, key: str, folder: Path, choice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*chosen(folder), *TASK, f"task.data_dir={choice_data}"]
    assert main(["optimize", *line, setting, f"output_dir={folder / 'run'}"]) == 2
    assert key in capsys.readouterr().err
    assert not (folder / "run").exists()
