"""What a library raises under a command is a paragraph; embedgrad's own faults keep their traceback."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import transformers as tf
from tests.conftest import make_tokenizer

from embedgrad_cli.cli.main import main
from embedgrad_cli.training.trainer import Training

SMALL = ["device=cpu", "train.steps=1", "train.eval_every=1", "task.split.num_train=8", "task.split.num_validation=2"]


def fails_in(module: str) -> Any:
    """A function of another module that fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no kernel\nfor this device")

    return FunctionType(fail.__code__, {"__name__": module, "__builtins__": __builtins__})


def optimize(tmp_path: Path, *more: str) -> int:
    return main(["optimize", *SMALL, *more, "task.split.num_test=2", f"output_dir={tmp_path / 'run'}"])


@pytest.mark.parametrize("module", ["transformers.models.qwen2", "transformers_modules.remote"])
def test_a_models_own_error_names_the_model_and_leaves_its_traceback_in_the_log(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Training, "fit", fails_in(module))
    assert optimize(tmp_path) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "embedded:tiny" in said
    assert module.partition(".")[0] in said
    assert "NotImplementedError: no kernel" in said
    assert "Traceback" in (tmp_path / "run/embedgrad.log").read_text()


def test_its_traceback_is_shown_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDGRAD_TRACEBACK", "1")
    monkeypatch.setattr(Training, "fit", fails_in("transformers.models.qwen2"))
    with pytest.raises(NotImplementedError):
        optimize(tmp_path)


@pytest.mark.parametrize("module", ["embedgrad_cli.training.trainer", "json.decoder"])
def test_a_fault_of_embedgrads_own_is_not_hidden(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "fit", fails_in(module))
    with pytest.raises(NotImplementedError):
        optimize(tmp_path)


def test_a_model_that_takes_no_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "dim_head": 8, "dim_ff": 32}
    network = tf.CpmAntForCausalLM(tf.CpmAntConfig(vocab_size=len(tokenizer), prompt_length=2, **shape))
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for split in ("train", "validation", "test"):
        rows = [{"question": f"{split} {i}", "answer": str(i)} for i in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert optimize(tmp_path, f"model.path={tmp_path / 'model'}", f"task.data_dir={tmp_path}") in (1, 2)
    assert str(tmp_path / "model") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/metrics.jsonl"),
            "/run/metrics.jsonl",
        ),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied"),
        (MemoryError(), "memory ran out"),
    ],
)
def test_what_the_system_refuses_is_a_paragraph(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise error

    monkeypatch.setattr("embedgrad_cli.commands.optimize.lock_run", refused)
    assert optimize(tmp_path) == 1
    assert said in capsys.readouterr().err
    monkeypatch.setenv("EMBEDGRAD_TRACEBACK", "1")
    with pytest.raises(type(error)):
        optimize(tmp_path)
