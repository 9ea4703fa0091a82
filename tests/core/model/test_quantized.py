"""Quantised models compute with the weights that they stand for, and so does their gradient; others are refused."""

from __future__ import annotations

import copy
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import conftest
from tests.conftest import make_model
from tests.core.passes.parity import assert_parity, encoded_rows, gradient_by, moved_prompt, plain_gradient
from torch import nn

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.kernels.packed_linear import float32_copy
from embedgrad_cli.core.model import quantized
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.errors import ModelError
from embedgrad_cli.storage.quantization import QuantizationRecord, quantization_record

LIBRARIES = {"nf4": "bitsandbytes", "int8": "torchao"}
KINDS = list(LIBRARIES)


def load(folder: Path, quantization: Any = None, dtype: Any = "float32") -> LanguageModel:
    config = ModelConfig(str(folder), None, dtype, "auto", False, quantization=quantization)
    return load_model(config, torch.device("cpu"))


def need(*names: str) -> None:
    for name in (*names, "accelerate"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'embedgrad[quantized]'")


def write_model(folder: Path, monkeypatch: pytest.MonkeyPatch, architecture: str = "qwen2") -> Path:
    """Weights are packed in blocks of 64."""
    monkeypatch.setitem(conftest.SHAPE, "hidden_size", 64)
    monkeypatch.setitem(conftest.SHAPE, "intermediate_size", 128)
    model = make_model(architecture)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def save_quantized(source: Path, folder: Path, request: Any) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(source, quantization_config=request, device_map={"": "cpu"})
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def dequantized(model: LanguageModel) -> LanguageModel:
    """The same model with ordinary layers, whose weights are read off the packed ones' outputs."""
    network: Any = copy.deepcopy(model.network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and layer is not network.get_output_embeddings():
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            with torch.no_grad():
                nothing = layer(torch.zeros(1, layer.in_features))
                plain.weight.copy_((layer(torch.eye(layer.in_features)) - nothing).T)
                if plain.bias is not None:
                    plain.bias.copy_(nothing[0])
            network.set_submodule(name, plain.requires_grad_(False))
    return LanguageModel(network, model.tokenizer, model.path, None, model.is_chat)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_dequantised_weights(
    kind: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(LIBRARIES[kind])
    model = load(write_model(tmp_path, monkeypatch, architecture), kind)
    assert model.quantization is not None
    assert model.quantization.kind == kind
    assert model.has_plain_head  # and with that, passes without gradient have been run
    encoded = encoded_rows(model, "both-sides")
    prompt = moved_prompt(encoded, model)
    assert why_no_trunk(model, encoded.examples, prompt) is None
    plain = plain_losses(dequantized(model), encoded.examples, prompt).mean()
    assert_parity(Forward(model, encoded.examples), encoded.examples, prompt, plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_shares_the_trunk(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(LIBRARIES[kind])
    folder = write_model(tmp_path, monkeypatch)
    model = load(folder, kind, "bfloat16")
    exact = replace(model, network=float32_copy(model.network))
    encoded = encoded_rows(model, "before-query")
    prompt = moved_prompt(encoded, exact)
    assert why_no_trunk(model, encoded.examples, prompt) is None
    expected, plain = plain_gradient(exact, encoded, prompt), plain_gradient(model, encoded, prompt)
    found = gradient_by(Forward(model, encoded.examples), encoded, prompt)
    assert (found - expected).norm() <= 1.05 * (plain - expected).norm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_unpacked_weight_is_kept_for_the_backward_pass(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(LIBRARIES[kind])
    model = load(write_model(tmp_path, monkeypatch), kind)
    shapes = set()
    embeds = model.embed(torch.arange(7)[None]).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.add(tuple(t.shape)) or t, lambda t: t):
        model.network.model(inputs_embeds=embeds, use_cache=False)
    packed = {(128, 64), (64, 128), (64, 64), (32, 64), (64, 32)}
    assert not shapes & packed


@pytest.mark.slow
def test_checkpoints_are_loaded_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*LIBRARIES.values())
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import BitsAndBytesConfig, TorchAoConfig

    source = write_model(tmp_path / "source", monkeypatch)
    requests = {
        "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        "int8": TorchAoConfig(Int8WeightOnlyConfig()),
    }
    for kind, request in requests.items():
        folder = save_quantized(source, tmp_path / kind, request)
        stored, packed = load(folder), load(source, kind)
        ids = torch.tensor([[1, 80, 300, 42, 7, 2]])
        assert torch.equal(stored.network(ids).logits, packed.network(ids).logits)
        assert stored.quantization == packed.quantization
        with pytest.raises(ModelError, match="quantised already"):
            load(folder, kind)


@pytest.mark.slow
def test_what_rounds_its_inputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*LIBRARIES.values())
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    from transformers import BitsAndBytesConfig, TorchAoConfig

    source = write_model(tmp_path / "source", monkeypatch)
    requests = {
        "8bit": BitsAndBytesConfig(load_in_8bit=True),
        "dynamic": TorchAoConfig(Int8DynamicActivationInt8WeightConfig()),
    }
    for name, request in requests.items():
        with pytest.raises(ModelError, match=f"model.path={tmp_path / name}.*gradient"):
            load(save_quantized(source, tmp_path / name, request))


@pytest.mark.parametrize("kind", KINDS)
def test_a_library_that_is_not_there_is_named(kind: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf"model.quantization={kind} .*{LIBRARIES[kind]}.*embedgrad\[quantized\]"):
        load(model_folder, kind)


def test_a_checkpoint_of_a_library_that_is_not_there(model_folder: Path, tmp_path: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    for file in model_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": GPTQ}))
    with pytest.raises(ModelError, match=r"4 bits \(gptq\).*(gptqmodel|optimum)"):
        load(tmp_path)


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4 (bitsandbytes)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8 (bitsandbytes)"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "int8 (torchao)"),
        (GPTQ, "4 bits (gptq)"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_what_a_config_says(settings: dict[str, Any], name: str) -> None:
    record = quantization_record(settings)
    assert isinstance(record, QuantizationRecord)
    assert record.name == name
    assert quantization_record(None) is None
