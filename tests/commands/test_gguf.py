"""The commands on a model that is a GGUF file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import evaluate_config, make_network, make_tokenizer, optimize_config
from tests.gguf_models import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

import embedgrad_cli
from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.unpacked_gguf import place_of
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_header import read_header
from embedgrad_cli.storage.gguf_files import sha256_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, choice_data: Path) -> OptimizeConfig:
    """A run on a folder that holds a GGUF file; `other.gguf` beside the folder is the model in another quantisation."""
    folder = tmp_path_factory.mktemp("gguf")
    tokenizer = make_tokenizer()
    (folder / "model").mkdir()
    for file, quantization in (("model/tiny.gguf", "Q8_0"), ("other.gguf", "Q4_0")):
        write_gguf(folder / file, make_network("qwen2", len(tokenizer)), tokenizer, quantization)
    config = optimize_config(folder / "run", folder / "model", choice_data)
    optimize.run(config)
    return config


def artifact_of(config: OptimizeConfig) -> Path:
    return Path(config.output_dir) / "prompt.safetensors"


def test_a_run_moves_the_vectors_and_records_the_file(trained: OptimizeConfig) -> None:
    tensors = load_file(artifact_of(trained))
    assert not torch.equal(tensors["soft_prompt"], tensors["seed_embedding"])
    record = read_header(artifact_of(trained)).model
    assert record.path == trained.model.path
    assert record.gguf is not None
    assert (record.gguf.quantization, record.gguf.sha256) == ("Q8_0", sha256_of(Path(record.path) / "tiny.gguf"))


def test_evaluate_repeats_what_optimize_measured(trained: OptimizeConfig, tmp_path: Path) -> None:
    """Of the same bytes in another place, too."""
    moved = shutil.copy(Path(trained.model.path) / "tiny.gguf", tmp_path / "moved.gguf")
    config = evaluate_config(trained, tmp_path / "run", str(artifact_of(trained)), model__path=str(moved))
    evaluate.run(config)
    was, now = (json.loads((Path(run) / "results.json").read_text()) for run in (trained.output_dir, config.output_dir))
    assert now["arms"]["optimized"]["correct"] == was["arms"]["optimized"]["correct"]


@pytest.mark.parametrize("dequantised", [False, True])
def test_other_weights_are_refused(trained: OptimizeConfig, tmp_path: Path, dequantised: bool) -> None:
    """Another file, and a folder: nobody knows what its weights are."""
    path = Path(trained.output_dir).parent / "other.gguf"
    if dequantised:
        path = shutil.copytree(place_of(trained.model.path), tmp_path / "folder")
    config = evaluate_config(trained, tmp_path / "run", str(artifact_of(trained)), model__path=str(path))
    with pytest.raises(ArtifactError, match="the GGUF file that the weights are from"):
        evaluate.run(config)


@pytest.mark.parametrize(("name", "code"), [("model/tiny.gguf", 0), ("other.gguf", 2)])
def test_inspect_verifies_the_file(trained: OptimizeConfig, capsys: Capture, name: str, code: int) -> None:
    file = Path(trained.output_dir).parent / name
    capsys.readouterr()
    assert main(["inspect", str(artifact_of(trained)), "--verify", str(file), "--format", "json"]) == code
    captured = capsys.readouterr()
    if code == 0:
        assert all(token["nearest"] for token in json.loads(captured.out)["tokens"])
    else:
        assert sha256_of(file)[:8] in captured.err


def test_the_prompt_is_read_as_text(trained: OptimizeConfig, tmp_path: Path) -> None:
    assert main(["export", f"artifact={artifact_of(trained)}", "format=text", f"output_dir={tmp_path / 'out'}"]) == 0
    assert json.loads((tmp_path / "out/text.json").read_text())["arms"].keys() >= {"seed", "optimized", "reading"}


def test_in_python_the_network_is_the_callers(trained: OptimizeConfig) -> None:
    """What transformers made of the file itself, dequantised."""
    place: dict[str, Any] = {"gguf_file": "tiny.gguf"}
    model = AutoModelForCausalLM.from_pretrained(trained.model.path, **place)
    tokenizer = AutoTokenizer.from_pretrained(trained.model.path, **place)
    prompt = embedgrad_cli.load(artifact_of(trained))
    embeds = prompt.apply(model, tokenizer, [{"role": "user", "content": "apples"}])["inputs_embeds"]
    assert (embeds[0, :, None] == prompt.vectors).all(dim=2).any(dim=0).all()


@pytest.mark.parametrize(
    ("files", "named", "told"),
    [(("a.gguf", "b.gguf"), "", "a.gguf"), (("model.bin",), "model.bin", "gguf"), ((), "c.gguf", "hf download")],
)
def test_a_path_that_names_no_one_file_is_refused(
    tmp_path: Path, capsys: Capture, files: tuple[str, ...], named: str, told: str
) -> None:
    """Before anything is loaded."""
    for name in files:
        (tmp_path / name).write_bytes(b"")
    capsys.readouterr()
    assert main(["optimize", "model=local", f"model.path={tmp_path / named}", f"output_dir={tmp_path / 'out'}"]) == 2
    message = capsys.readouterr().err
    assert "model.path" in message
    assert told in message
