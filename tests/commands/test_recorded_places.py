"""Places that an artifact or a run directory recorded: what is not there is said with the setting that replaces it, and
none of them leads out of the folders that are named."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.artifacts import edited
from tests.conftest import make_model, optimize_config

import embedgrad_cli
from embedgrad_cli import assets
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import optimize
from embedgrad_cli.config.checks import FORMATS
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.config.task_schema import HubConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.nearest_tokens import TableFile
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.errors import ModelError, UserError
from embedgrad_cli.exports.weight_files import Checkpoint
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.run_directory import RunDirectory

OLD_RUN = Path(__file__).parents[1] / "storage/old_run"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
MODEL_PATH, DATA_DIR, SPLIT = "config__model__path", "config__task__data_dir", "config__task__split__train"
HUB = "config__task__hub"
Capture = pytest.CaptureFixture[str]

opened: set[str] = set()


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Python tells of every file that it opens, by name or by number."""
    if event == "open" and isinstance(arguments[0], str):
        opened.add(arguments[0])


sys.addaudithook(note)  # for good: no hook can be taken back


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no one names, with data that would be read without an error."""
    folder = tmp_path / "outside"
    shutil.copytree(Path(assets.__file__).parent / "word-problems", folder)
    opened.clear()
    return folder


def write_artifact(folder: Path, **recorded: Any) -> Path:
    """An artifact of the embedded model and task that records something else."""
    made = load_artifact(OLD_RUN / "prompt.safetensors")
    save_artifact(folder / "a.safetensors", made.prompt, edited(made.metadata, **recorded))
    return folder / "a.safetensors"


def write_evaluation(folder: Path, **task: Any) -> Path:
    """A run directory of an evaluation that records this of its task."""
    folder.mkdir()
    config = yaml.safe_load((OLD_RUN / "config.yaml").read_text())
    settings = {
        key: config[key] for key in ("seed", "device", "log_level", "model", "template", "prompt", "evaluation")
    }
    settings |= {"task": {**config["task"], **task}, "arms": ["seed"], "artifact": None, "baseline": None}
    settings |= {"split": "test", "mode": "full", "output_dir": str(folder)}
    settings["generation"] = {"num_samples": 1, "temperature": 0.0, "top_p": 1.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.mark.parametrize(
    ("command", "recorded", "setting"),
    [
        ("evaluate", {MODEL_PATH: "/nowhere/model"}, "model.path="),
        *((f"export format={name}", {MODEL_PATH: "/nowhere/model"}, "model.path=") for name in FORMATS),
        ("evaluate", {DATA_DIR: "/nowhere/data"}, "task.data_dir="),
        ("export format=text", {DATA_DIR: "/nowhere/data"}, " data_dir="),
        ("evaluate", {DATA_DIR: "embedded:of-another-version"}, "task.data_dir="),
        ("evaluate", {DATA_DIR: None, HUB: {"path": "some/reviews", "name": None}}, "task.data_dir="),
        ("export format=text", {DATA_DIR: None, HUB: {"path": "some/reviews", "name": None}}, " data_dir="),
    ],
)
def test_what_is_not_here_is_said_with_what_replaces_it(
    command: str, recorded: dict[str, Any], setting: str, tmp_path: Path, capsys: Capture
) -> None:
    artifact = write_artifact(tmp_path, **recorded)
    assert main([*command.split(), f"artifact={artifact}", f"output_dir={tmp_path}/out"]) == 2
    text = capsys.readouterr().err
    assert setting in text
    assert (recorded[HUB]["path"] if HUB in recorded else f"artifact={artifact}") in text
    assert not (tmp_path / "out").exists()


def test_grading_again_says_what_replaces_the_data(tmp_path: Path, capsys: Capture) -> None:
    run = write_evaluation(tmp_path / "run", data_dir="/nowhere/data")
    assert main(["evaluate", "--regrade", f"output_dir={run}"]) == 2
    text = capsys.readouterr().err
    assert "task.data_dir=" in text
    assert str(run / "config.yaml") in text


def test_inspect_and_python_need_no_recorded_place(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path, **{MODEL_PATH: "/nowhere/model", DATA_DIR: "/nowhere/data"})
    assert main(["inspect", str(artifact)]) == 0
    assert main(["inspect", str(artifact), "--verify", "embedded:tiny"]) == 0
    assert len(embedgrad_cli.load(artifact).vectors) > 0


def test_inspect_reads_nothing_outside(tmp_path: Path, capsys: Capture) -> None:
    home = Path(assets.__file__).parent
    shutil.copytree(home / "tiny", tmp_path / "outside")
    place = f"embedded:{os.path.relpath(tmp_path / 'outside', home)}"
    artifact = write_artifact(tmp_path, model__path=place, **{MODEL_PATH: place})
    assert main(["inspect", str(artifact), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] is not None
    assert all(token["nearest"] == [] for token in report["tokens"])


@pytest.mark.parametrize("command", ["evaluate", "export format=text"])
@pytest.mark.parametrize(
    "recorded",
    [
        {SPLIT: ["../outside/train"]},
        {SPLIT: ["{outside}/train"]},
        {SPLIT: ["x\\..\\..\\outside\\train", "../outside/train"]},
        {DATA_DIR: "embedded:{from_assets}"},
        {MODEL_PATH: "embedded:{from_assets}"},
        {DATA_DIR: None, HUB: {"path": "{outside}", "name": None}},
        {DATA_DIR: None, HUB: {"path": "./outside", "name": None}},
        {DATA_DIR: None, HUB: {"path": "json", "name": None}, SPLIT: ["train"]},
    ],
    ids=str,
)
def test_nothing_outside_is_read(
    command: str,
    recorded: dict[str, Any],
    outside: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(outside if "json" in str(recorded) else tmp_path)
    (tmp_path / "data").mkdir()
    for split in ("validation", "test"):
        shutil.copy(outside / f"{split}.jsonl", tmp_path / "data")
    opened.clear()
    filled = _fill({DATA_DIR: str(tmp_path / "data"), **recorded}, outside)
    artifact = write_artifact(tmp_path, **filled)
    code = main([*command.split(), f"artifact={artifact}", f"output_dir={tmp_path}/out"])
    read = [file for file in opened if outside in Path(file).resolve().parents]
    assert (code, read) == (2, [])
    assert capsys.readouterr().err.count("=") > 0, "a setting is named"


def _fill(value: Any, outside: Path) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, outside) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, outside) for item in value]
    places = {"{outside}": str(outside), "{from_assets}": os.path.relpath(outside, Path(assets.__file__).parent)}
    for place, path in places.items():
        value = value.replace(place, path) if isinstance(value, str) else value
    return value


def test_grading_again_reads_nothing_outside(outside: Path, tmp_path: Path) -> None:
    split = {"train": ["train"], "validation": ["validation"], "test": ["../outside/test"]}
    shutil.copytree(outside, tmp_path / "data")
    nulls = dict.fromkeys(("num_train", "num_validation", "num_test", "folds"))
    run = write_evaluation(tmp_path / "run", data_dir=str(tmp_path / "data"), split={**split, **nulls})
    (run / "samples.jsonl").write_text("")
    opened.clear()
    assert main(["evaluate", "--regrade", f"output_dir={run}"]) == 2
    assert [file for file in opened if outside in Path(file).resolve().parents] == []


def test_a_split_may_be_below_its_folder(tmp_path: Path, choice_data: Path) -> None:
    shutil.copytree(choice_data, tmp_path / "data/main")
    config = optimize_config(tmp_path / "run", Path("embedded:tiny"), tmp_path / "data", train__steps=1)
    for name in ("train", "validation", "test"):
        setattr(config.task.split, name, [f"main/{name}"])
    optimize.run(config)


@pytest.mark.parametrize("revision", ["../../main", "/etc/hostname", "a/../../b"])
def test_a_revision_stays_in_the_cache(revision: str, tmp_path: Path, capsys: Capture) -> None:
    artifact = write_artifact(tmp_path, config__model__revision=revision, model__revision=revision)
    assert main(["evaluate", f"artifact={artifact}", f"output_dir={tmp_path}/out"]) == 2
    assert "model.revision" in capsys.readouterr().err


def test_shards_are_files_of_the_model_s_own_folder(tmp_path: Path) -> None:
    model, folder = make_model(), tmp_path / "model"
    model.network.save_pretrained(folder, max_shard_size="40KB")
    model.tokenizer.save_pretrained(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = next(iter(index["weight_map"].values()))
    (folder / shard).rename(tmp_path / shard)
    index["weight_map"] = {k: f"../{v}" if v == shard else v for k, v in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = ModelConfig(str(folder), None, "auto", "auto", trust_remote_code=False)
    with pytest.raises(ModelError, match=r"model\.path="):
        load_model(config, pick_device("cpu"))
    with pytest.raises(ModelError):
        Checkpoint(folder)
    with pytest.raises(ModelError):
        TableFile(folder, model.hidden_size)


@pytest.mark.parametrize("name", ["answers.partial.jsonl", "metrics.jsonl", "embedgrad.log"])
def test_a_run_writes_no_file_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=name):
        RunDirectory(tmp_path / "run", {})


@pytest.fixture
def hub_cache(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two commits of the model `someone/tiny`: main is the first, and has no embeddings in common
    with the other."""
    from huggingface_hub import constants

    repository = tmp_path / "hub/models--someone--tiny"
    other = make_model()
    other.network.get_input_embeddings().weight.mul_(1.5)
    shutil.copytree(model_folder, repository / "snapshots" / COMMIT)
    other.network.save_pretrained(repository / "snapshots" / OTHER_COMMIT)
    other.tokenizer.save_pretrained(repository / "snapshots" / OTHER_COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


def test_the_commit_of_a_model_is_recorded_and_used(
    hub_cache: Path, tmp_path: Path, model_folder: Path, choice_data: Path, capsys: Capture
) -> None:
    optimize.run(optimize_config(tmp_path / "run", Path("someone/tiny"), choice_data, train__steps=1))
    artifact = tmp_path / "run/prompt.safetensors"
    assert read_header(artifact).model.revision == COMMIT
    (hub_cache / "refs/main").write_text(OTHER_COMMIT)

    assert main(["evaluate", f"artifact={artifact}", f"output_dir={tmp_path}/a"]) == 0
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["model"]["revision"] == COMMIT
    for name in ("embeds", "text"):
        assert main(["export", f"artifact={artifact}", f"format={name}", f"output_dir={tmp_path}/{name}"]) == 0
    assert main(["inspect", str(artifact), "--verify", "someone/tiny"]) == 0

    assert main(["evaluate", f"artifact={artifact}", "model.revision=main", f"output_dir={tmp_path}/b"]) == 2
    assert OTHER_COMMIT in capsys.readouterr().err
    # The commit is that of the recorded model, and of no other.
    assert main(["evaluate", f"artifact={artifact}", f"model.path={model_folder}", f"output_dir={tmp_path}/c"]) == 0
    assert yaml.safe_load((tmp_path / "c/config.yaml").read_text())["model"]["revision"] is None


def test_an_adapter_does_not_name_the_model(hub_cache: Path, model_folder: Path) -> None:
    adapter = {"base_model_name_or_path": str(model_folder), "peft_type": "LORA"}
    (hub_cache / "snapshots" / COMMIT / "adapter_config.json").write_text(json.dumps(adapter))
    opened.clear()
    with pytest.raises(ModelError):
        load_model(ModelConfig("someone/tiny", None, "auto", "auto", trust_remote_code=False), pick_device("cpu"))
    assert [file for file in opened if model_folder in Path(file).parents] == []


@pytest.fixture
def data_cache(tmp_path: Path, choice_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the library `datasets` with one commit of `some/reviews`."""
    import datasets

    folder = tmp_path / "datasets/some___reviews/default/0.0.0" / COMMIT
    files = {split: str(choice_data / f"{split}.jsonl") for split in ("train", "validation", "test")}
    builder = datasets.load_dataset_builder("json", data_files=files, cache_dir=str(tmp_path / "made"))
    builder.dataset_name = "reviews"
    builder.download_and_prepare(output_dir=str(folder))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "config_name": "default"}))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return folder


def test_the_commit_of_the_data_is_recorded_and_used(
    data_cache: Path, tmp_path: Path, model_folder: Path, capsys: Capture
) -> None:
    config = optimize_config(tmp_path / "run", model_folder, Path("unused"), train__steps=1, task__data_dir=None)
    config.task.hub = HubConfig("some/reviews", None, None)
    optimize.run(config)
    artifact = tmp_path / "run/prompt.safetensors"
    assert read_header(artifact).data_revision == COMMIT
    assert json.loads((tmp_path / "run/results.json").read_text())["data"]["revision"] == COMMIT

    assert main(["evaluate", f"artifact={artifact}", f"output_dir={tmp_path}/a"]) == 0
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["task"]["hub"]["revision"] == COMMIT
    data_cache.rename(data_cache.with_name(OTHER_COMMIT))  # all that there is, out of the hub's reach
    capsys.readouterr()
    assert main(["evaluate", f"artifact={artifact}", f"output_dir={tmp_path}/b"]) == 2
    text = capsys.readouterr().err
    assert COMMIT in text
    assert f"task.hub.revision={OTHER_COMMIT}" in text
    line = ["evaluate", f"artifact={artifact}", f"task.hub.revision={OTHER_COMMIT}", f"output_dir={tmp_path}/b"]
    assert main(line) == 0
