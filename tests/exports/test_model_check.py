"""A folder that does not hold what it should is not left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.exports.conftest import Case

from embedgrad_cli.exports import model
from embedgrad_cli.exports.weight_files import write_safetensors


@pytest.mark.parametrize("damaged", ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
def test_a_folder_with_other_tensors_is_not_left(
    damaged: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(file: Path, tensors: Any, metadata: Any) -> None:
        write_safetensors(file, tensors, metadata)
        changed = load_file(file)
        changed[damaged if "norm" not in damaged else "model.gone.weight"] = changed.pop(damaged) + 1
        save_file(changed, file, metadata)

    monkeypatch.setattr(model, "write_safetensors", write)
    assert case.export("model", tmp_path / "out") == 2
    assert f"model.path={case.folder} " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_number_of_rows_is_not_left(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = model.model_settings
    monkeypatch.setattr(model, "model_settings", lambda source, ids: {**settings(source, ids), "vocab_size": 999})
    assert case.export("model", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
