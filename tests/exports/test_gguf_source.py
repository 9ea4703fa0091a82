"""Exports of a prompt whose model is a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.conftest import make_network, make_tokenizer
from tests.exports.conftest import Case, make_case
from tests.exports.test_model_folder import assert_same
from tests.gguf_models import write_gguf

from embedgrad_cli.exports.model_card import hub_id
from embedgrad_cli.storage.gguf_files import sha256_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=["qwen2-Q8_0", "llama-Q4_0"])
def gguf_case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    architecture, quantization = request.param.split("-")
    return make_case(tmp_path, architecture, tied=architecture == "qwen2", gguf=quantization)


def test_an_exported_model_answers_like_embedgrad(gguf_case: Case, tmp_path: Path) -> None:
    """It is a whole folder, dequantised in float32, with no word of quantisation."""
    assert gguf_case.export("model", tmp_path / "out") == 0
    assert_same(gguf_case, tmp_path / "out")
    with safe_open(tmp_path / "out/model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config


@pytest.mark.parametrize("format", ["embeds", "peft", "hub"])
def test_other_formats_name_the_file_by_its_hash(format: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, gguf="Q8_0")
    assert case.export(format, tmp_path / "out") == 0
    written = "".join(file.read_text() for file in (tmp_path / "out").iterdir() if file.suffix in (".json", ".md"))
    if format == "peft":  # a model that PEFT can load
        base = json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"]
        assert (Path(base) / "model.safetensors").is_file()
    else:
        assert sha256_of(case.folder / "tiny.gguf") in written


def test_another_file_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """Of the same network and tokenizer, with the same table, in float32."""
    case = make_case(tmp_path, gguf="F32")
    tokenizer = make_tokenizer()
    network = make_network("qwen2", len(tokenizer))
    network.config.tie_word_embeddings = True
    network.tie_weights()
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    other = write_gguf(tmp_path / "other.gguf", network, tokenizer, "F32")
    capsys.readouterr()
    assert case.export("embeds", tmp_path / "out", f"model.path={other}") == 2
    message = capsys.readouterr().err
    assert sha256_of(other)[:8] in message
    assert sha256_of(case.folder / "tiny.gguf")[:8] in message


def test_a_file_is_no_name_on_the_hub() -> None:
    assert hub_id("models/tiny.gguf") is None
