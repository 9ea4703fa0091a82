"""No right comes from an artifact or a run directory: code that comes with a model runs only if the user says so."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from tests.artifacts import edited
from tests.conftest import make_tokenizer

import embedgrad_cli
from embedgrad_cli import assets
from embedgrad_cli.cli.main import main
from embedgrad_cli.config.build import COMMANDS, settings
from embedgrad_cli.config.checks import FORMATS
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact

OLD_RUN = Path(__file__).parents[1] / "storage/old_run"
CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedModel

Path({marker!r}).touch()


class OwnConfig(PretrainedConfig):
    model_type = "own"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where the model's code leaves a trace."""
    return tmp_path / "the code ran"


@pytest.fixture
def model_with_code(tmp_path: Path, marker: Path) -> Path:
    folder = tmp_path / "model_with_code"
    make_tokenizer().save_pretrained(folder)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return folder


@pytest.fixture
def artifact(tmp_path: Path, model_with_code: Path) -> Path:
    """An artifact that records the model with code in it, and that its code may run."""
    made = load_artifact(OLD_RUN / "prompt.safetensors")
    changes = {"config__model__path": str(model_with_code), "config__model__trust_remote_code": True}
    save_artifact(tmp_path / "a.safetensors", made.prompt, edited(made.metadata, **changes))
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "artifact={artifact}", "output_dir=out"],
        ["evaluate", "arms=[{artifact}]", "output_dir=out"],
        *(["export", "artifact={artifact}", f"format={name}", "output_dir=out"] for name in FORMATS),
        ["inspect", "{artifact}"],
        ["inspect", "{artifact}", "--verify", "{model}"],
    ],
    ids=lambda words: " ".join(words[:1] + words[2:3]),
)
def test_an_artifact_runs_no_code(
    words: list[str],
    artifact: Path,
    model_with_code: Path,
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([word.format(artifact=artifact, model=model_with_code) for word in words])
    assert code in (0, 2)
    assert not marker.exists()
    if words[0] in ("evaluate", "export"):
        assert "model.trust_remote_code=true" in capsys.readouterr().err


class Trap:
    """What touches a file once it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def pickles(marker: Path) -> dict[str, bytes]:
    """A pickle bare, as torch writes it, and as numpy does."""
    as_torch, as_numpy = io.BytesIO(), io.BytesIO()
    torch.save(Trap(marker), as_torch)
    numpy.save(as_numpy, numpy.array([Trap(marker)]), allow_pickle=True)
    return {"bare": pickle.dumps(Trap(marker)), "torch": as_torch.getvalue(), "numpy": as_numpy.getvalue()}


@pytest.mark.parametrize("kind", ["bare", "torch", "numpy"])
def test_nothing_is_unpickled(
    kind: str, marker: Path, tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, run, model, data = pickles(marker)[kind], tmp_path / "run", tmp_path / "model", tmp_path / "data"
    shutil.copytree(OLD_RUN, run)
    shutil.copytree(model_folder, model)
    shutil.copytree(Path(assets.resolve("embedded:reviews")), data)
    for name in ("checkpoint.safetensors", "teacher.safetensors", "digests.json"):
        (run / name).write_bytes(content)
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "vocab.json", "added_tokens.json"):
        (model / name).write_bytes(content)
    (model / "model.safetensors").unlink()
    (tmp_path / "a.safetensors").write_bytes(content)
    out, given = f"output_dir={tmp_path}/out", [f"model.path='{model}'", "task=reviews", "prompt=sentiment"]
    small = ["task.split.num_train=4", "train.steps=1", "train.batch_size=2"]
    lines = [
        ["inspect", f"{tmp_path}/a.safetensors"],
        ["evaluate", f"artifact={tmp_path}/a.safetensors", out],
        ["optimize", "model=local", *given, out],
        ["optimize", "task=reviews", f"task.data_dir='{data}'", "prompt=sentiment", *small, out],
        ["compare", str(run)],
        ["report", str(run), f"output={tmp_path}/report.html"],
    ]
    (data / "train.jsonl").write_bytes(content)
    for line in lines:
        assert main(line) in (0, 2), line
    shutil.copy(model_folder / "model.safetensors", model)
    assert main(["optimize", "model=local", *given, *small, out]) in (0, 2)
    assert not marker.exists()
    assert "Traceback" not in capsys.readouterr().err
    if kind == "bare":
        pickle.loads(content)
        assert marker.exists(), "the trap works"


def test_python_runs_no_code(artifact: Path, marker: Path) -> None:
    assert len(embedgrad_cli.load(artifact).vectors) > 0
    assert not marker.exists()


def test_a_run_directory_runs_no_code(model_with_code: Path, marker: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(OLD_RUN, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] |= {"path": str(model_with_code), "trust_remote_code": True}
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"arms": ["seed"]}))
    assert main(["compare", str(run)]) == 0
    assert main(["evaluate", "--regrade", f"output_dir={run}"]) == 2
    assert main(["optimize", "experiment=debug", "task.fewshot=1", "train.steps=1", f"output_dir={run}"]) == 2
    assert not marker.exists()


def test_the_user_may_say_so(artifact: Path, marker: Path, tmp_path: Path) -> None:
    line = ["evaluate", f"artifact={artifact}", "model.trust_remote_code=true", f"output_dir={tmp_path}/out"]
    assert main(line) != 0, "the code holds no model"
    assert marker.exists()


def test_what_a_right_is() -> None:
    rights = {key for schema in COMMANDS.values() for key, _, item in settings(schema) if item.metadata["right"]}
    assert rights == {
        *("model.trust_remote_code", "objective.reward", "push", "quantizer", "tracker.name", "tracker.place")
    }
