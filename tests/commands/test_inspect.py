"""`embedgrad inspect` on artifacts of the embedded model and of tiny ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.artifacts import save_prompt
from tests.conftest import PLACEMENTS, SEEDS, make_model, optimize_config

from embedgrad_cli.cli import main as cli
from embedgrad_cli.commands import optimize
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.nearest_tokens import TableFile, find_model_folder, nearest_tokens
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt, measure_drift
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import ModelError

Capture = pytest.CaptureFixture[str]
Inspect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Path:
    """The artifact of a short run whose vectors went far."""
    config = optimize_config(tmp_path_factory.mktemp("run"), model_folder, choice_data, trust_region__kind="none")
    config.optimizer.lr = 0.5
    optimize.run(config)
    return Path(config.output_dir) / "prompt.safetensors"


@pytest.fixture
def inspect(capsys: Capture) -> Inspect:
    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.main(["inspect", *arguments, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def write_artifact(path: Path, model: LanguageModel, ids: tuple[tuple[int, ...], ...], model_path: str) -> SoftPrompt:
    prompt = SoftPrompt.from_seed(Slots(ids), model)
    with torch.no_grad():
        prompt.vectors += 0.1 * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(1))
    config = optimize_config(path.parent, Path(model_path), Path("data"), template=PLACEMENTS["both-sides"])
    config.prompt.text = SEEDS
    save_prompt(path, prompt, replace(model, path=model_path), config)
    return prompt


def test_the_numbers_are_those_of_the_loaded_model(artifact: Path, inspect: Inspect, model_folder: Path) -> None:
    report = inspect(str(artifact), "--verify", str(model_folder))

    results = json.loads((artifact.parent / "results.json").read_text())
    drift, tokens = results["drift"], report["tokens"]
    assert [token["relative_drift"] for token in tokens] == pytest.approx(drift["relative_l2"])
    assert [token["cosine"] for token in tokens] == pytest.approx(drift["cosine"], abs=1e-6)
    assert [token["nearest"][0]["id"] for token in tokens] == drift["nearest"]
    assert "".join(token["seed"] for token in tokens) == SEEDS[0]
    assert all(len(token["nearest"]) == 5 for token in tokens)
    assert report["metadata"]["metrics"]["test"]["arms"] == results["arms"]
    assert report["missing"] is None
    assert report["verified"] == str(model_folder)


def test_the_table_for_people(artifact: Path, capsys: Capture, model_folder: Path) -> None:
    assert cli.main(["inspect", str(artifact), "--verify", str(model_folder)]) == 0
    text = capsys.readouterr().out
    results = json.loads((artifact.parent / "results.json").read_text())
    for name, arm in results["arms"].items():
        assert f"{arm['accuracy']:.1%}" in next(line for line in text.splitlines() if line.startswith(f"test, {name}"))
    said = {line.split("  ")[0]: line for line in text.splitlines()}
    assert said["wins, losses"].rstrip().endswith(f"{results['comparison']['wins']}, {results['comparison']['losses']}")
    assert f"{results['elsewhere']['kl']:.3f} nats per token" in said["elsewhere"]
    assert SEEDS[0] in text
    assert "Nearest tokens are not meanings" in text
    assert f"Verified: the prompt was made for {model_folder}." in text


def test_an_artifact_of_a_stopped_run(tmp_path: Path, capsys: Capture) -> None:
    write_artifact(tmp_path / "p.safetensors", make_model(), ((5, 9), (30,)), str(tmp_path / "gone"))
    assert cli.main(["inspect", str(tmp_path / "p.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "not measured" in text
    assert f"Nearest tokens are not shown: the model {tmp_path / 'gone'} is not on this machine" in text
    assert [line.split(maxsplit=2)[2].strip() for line in text.splitlines() if line.startswith("seed text")] == SEEDS
    assert " #5 " in text


def test_the_file_may_be_said_as_other_commands_take_it(artifact: Path, inspect: Inspect, capsys: Capture) -> None:
    assert cli.main(["inspect", str(artifact.parent)]) == 2
    hint = f"artifact={artifact}"
    assert hint in capsys.readouterr().err
    assert inspect(hint) == inspect(str(artifact))


def test_another_model_is_exit_code_2(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    other = make_model("qwen2")
    other.network.get_input_embeddings().weight.mul_(1.5)
    other.network.save_pretrained(tmp_path)
    other.tokenizer.save_pretrained(tmp_path)

    assert cli.main(["inspect", str(artifact), "--verify", str(tmp_path)]) == 2

    captured = capsys.readouterr()
    assert "embedding rows" in captured.err
    assert str(tmp_path) in captured.err
    assert captured.out == ""


def test_a_folder_that_became_another_model_is_not_compared(inspect: Inspect, tmp_path: Path) -> None:
    model, other = make_model("gpt2"), make_model("gpt2")
    other.network.get_input_embeddings().weight.copy_(other.network.get_input_embeddings().weight.roll(1, 0))
    other.network.save_pretrained(tmp_path)
    other.tokenizer.save_pretrained(tmp_path)
    write_artifact(tmp_path / "p.safetensors", model, ((5, 9), (30,)), str(tmp_path))
    report = inspect(str(tmp_path / "p.safetensors"))
    assert "are not those that the prompt was made for" in report["missing"]
    assert [token["slot"] for token in report["tokens"]] == [0, 0, 1]
    assert all(token["nearest"] == [] and token["seed"] is not None for token in report["tokens"])


@pytest.mark.parametrize("architecture", ["qwen2", "gemma", "gpt2", "mamba"])
@pytest.mark.parametrize("shards", [False, True])
def test_only_the_table_is_read(architecture: str, shards: bool, tmp_path: Path, inspect: Inspect) -> None:
    model = make_model(architecture)
    model.network.save_pretrained(tmp_path, max_shard_size="40KB" if shards else "5GB")
    model.tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    prompt = write_artifact(tmp_path / "p.safetensors", model, ((5, 9, 40), (30, 7)), str(tmp_path))
    expected = measure_drift(prompt, model)

    tokens = inspect(str(tmp_path / "p.safetensors"))["tokens"]

    assert [token["nearest"][0]["id"] for token in tokens] == expected.nearest
    assert [token["relative_drift"] for token in tokens] == pytest.approx(expected.relative_l2)


def test_nearest_tokens_over_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    table, vectors = torch.randn(50, 8, generator=generator), torch.randn(4, 8, generator=generator)
    chunks = [(start, table[start : start + 7]) for start in range(0, 50, 7)]
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], table[None], dim=2)
    expected = cosine.argsort(dim=1, descending=True)

    ids, cosines = nearest_tokens(vectors, chunks, 5)
    assert torch.equal(ids, expected[:, :5])
    torch.testing.assert_close(cosines, cosine.gather(1, ids))

    allowed, _ = nearest_tokens(vectors, chunks, 1, forbidden=expected[:, 0])
    assert not set(allowed.flatten().tolist()) & set(expected[:, 0].tolist())


def test_what_is_missing_in_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors file"):
        TableFile(tmp_path, 32)
    save_file({"model.embed_tokens.weight": torch.zeros(4, 16)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="width 32"):
        TableFile(tmp_path, 32)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be read"):
        TableFile(tmp_path, 32)
    assert find_model_folder("embedded:of-another-version", None) is None
    assert find_model_folder("owner/not-in-the-cache", None) is None
    assert find_model_folder("/no/such/folder/at/all", None) is None


def test_the_embedded_model_is_found(inspect: Inspect, tmp_path: Path) -> None:
    folder = find_model_folder("embedded:tiny", None)
    assert folder is not None
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    read = torch.cat([chunk for _, chunk in TableFile(folder, rows.shape[1])])
    assert torch.equal(read, rows)
    assert math.isfinite(read.sum().item())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("inspect", "embedgrad inspect outputs/demo/prompt.safetensors"),
        ("inspect nowhere", "artifact=nowhere"),
        ("inspect nowhere --format tabel", "table?"),
        ("inspect nowhere --verify ./nowhere", "--verify:"),
        ("inspect a b", "b"),
        ("inspect nowhere --verifi x", "--verifi:"),
        ("inspect --verify", "--verify:"),
        ("inspect --formt x --format y", "2 problems"),
    ],
)
def test_wrong_input(line: str, words: str, capsys: Capture) -> None:
    assert cli.main(line.split()) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_model_that_cannot_be_loaded_is_that_of_the_flag(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["inspect", str(artifact), "--verify", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"--verify {tmp_path}" in error
    assert "model.path" not in error


def test_help_and_completion(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["inspect", "--help"]) == 0
    assert "--verify MODEL" in capsys.readouterr().out
    monkeypatch.setenv("COMP_LINE", "embedgrad inspect --v")
    assert cli.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["--verify"]
