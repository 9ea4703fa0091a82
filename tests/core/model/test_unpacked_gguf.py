"""A GGUF file is the model that transformers makes of it, dequantised, and is unpacked once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import gguf
import pytest
import torch
from huggingface_hub import constants
from tests.conftest import CHAT_TEMPLATE, CORPUS, make_network, make_tokenizer
from tests.gguf_models import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model import unpacked_gguf
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.model_digest import model_digest
from embedgrad_cli.core.model.pinned_template import original_of
from embedgrad_cli.errors import ModelError
from embedgrad_cli.storage.gguf_files import sha256_of

IDS = torch.tensor([[1, 80, 300, 42, 7, 2]])


def load(path: Path, dtype: Any = "auto") -> LanguageModel:
    return load_model(ModelConfig(str(path), None, dtype, "auto", False), torch.device("cpu"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test's file of the same bytes would be unpacked already."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hub"))


def make_file(folder: Path, architecture: str = "qwen2", quantization: str = "Q8_0", left_out: str = "") -> Path:
    tokenizer = make_tokenizer()
    network: Any = make_network(architecture, len(tokenizer))
    weights = {name: weight for name, weight in network.state_dict().items() if name != left_out}
    network.state_dict = lambda: weights
    return write_gguf(folder / "tiny.gguf", network, tokenizer, quantization)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("quantization", ["F32", "F16", "Q8_0", "Q4_0"])
@torch.no_grad()
def test_the_logits_are_those_of_transformers(architecture: str, quantization: str, tmp_path: Path) -> None:
    file = make_file(tmp_path, architecture, quantization)
    model = load(file)
    settings = {"gguf_file": file.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, **settings)
    assert torch.equal(model.network(IDS).logits, plain(IDS).logits)
    assert model.gguf is not None
    assert (model.gguf.quantization, model.gguf.sha256) == (quantization, sha256_of(file))
    exact: Any = make_network(architecture, len(make_tokenizer()))
    assert torch.equal(model.network(IDS).logits, exact(IDS).logits) == (quantization == "F32")
    assert model.network.config.tie_word_embeddings is plain.config.tie_word_embeddings


def test_the_tokenizer_is_the_files_whatever_lies_beside_it(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    other = make_tokenizer()
    other.chat_template = "another"
    other.add_tokens(["apples"])
    other.save_pretrained(tmp_path)
    tokenizer = load(file).tokenizer
    assert original_of(tokenizer.chat_template) == plain.chat_template == CHAT_TEMPLATE
    assert tokenizer.get_vocab() == plain.get_vocab()
    assert tokenizer(CORPUS)["input_ids"] == plain(CORPUS)["input_ids"]


@pytest.mark.parametrize(("named", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_is_float32_unless_another_is_named(named: str, dtype: torch.dtype, tmp_path: Path) -> None:
    network = load(make_file(tmp_path, quantization="F16"), named).network
    assert {weight.dtype for weight in network.parameters()} == {dtype}
    assert type(network.get_input_embeddings()) is torch.nn.Embedding


def test_the_same_bytes_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_file(tmp_path)
    place = unpacked_gguf.place_of(str(file))
    monkeypatch.setattr(unpacked_gguf, "_unpack", None)
    (tmp_path / "moved").mkdir()
    copy = Path(shutil.copy(file, tmp_path / "moved/other.gguf"))
    assert unpacked_gguf.place_of(str(copy)) == unpacked_gguf.place_of(str(copy.parent)) == place
    digests = {model_digest(ModelConfig(str(path), None, "auto", "auto", False)) for path in (file, copy)}
    assert digests == {sha256_of(file)}


def fail(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert not any(Path(constants.HF_HOME).glob("embedgrad/gguf/*"))  # nothing half is left
    return str(caught.value)


def test_a_file_without_all_weights_is_refused(tmp_path: Path) -> None:
    """transformers fills what is missing with random numbers."""
    name = "model.layers.1.mlp.up_proj.weight"
    assert name in fail(make_file(tmp_path, left_out=name))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    file.write_bytes(file.read_bytes()[:2000])
    assert "Copy it again" in fail(file)


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_text("a page that says: not found")
    assert "Copy it again" in fail(tmp_path / "tiny.gguf")


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    file = make_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"qwen2", b"kwen9"))
    assert "kwen9" in fail(file)


def test_one_part_of_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf.GGUFWriter, "add_add_bos_token", lambda self, _: self.add_uint16("split.count", 3))
    assert "llama-gguf-split --merge" in fail(make_file(tmp_path))


def test_packed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(*_: Any, **__: Any) -> tuple[Any, Any]:
        network: Any = make_network("qwen2", 400)
        network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.to(torch.uint8), requires_grad=False)
        return network, {"missing_keys": set(), "mismatched_keys": set()}

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", packed)
    assert "torch.uint8" in fail(make_file(tmp_path))


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_gguf, "find_spec", lambda name: None if name == "gguf" else name)
    assert "embedgrad[gguf]" in fail(make_file(tmp_path))


def test_want_of_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    message = fail(make_file(tmp_path))
    assert "1,000" in message
    assert "HF_HOME" in message


def test_transformers_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, names = make_file(tmp_path), {"AutoModelForCausalLM": None, "AutoTokenizer": None, "__version__": "5.18.0"}
    monkeypatch.setitem(sys.modules, "transformers", cast(ModuleType, SimpleNamespace(**names)))
    with pytest.raises(ModelError, match=r"transformers 5\.19"):
        unpacked_gguf.place_of(str(file))
