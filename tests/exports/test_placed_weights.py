"""Which stored tensors are a network's embeddings: `from_pretrained` itself says what is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_network
from transformers import AutoConfig, AutoModelForCausalLM

from embedgrad_cli.errors import ModelError
from embedgrad_cli.exports.placed_weights import PlacedWeights, place_weights
from embedgrad_cli.exports.weight_files import INDEX, SINGLE, Checkpoint

FAMILIES = ["qwen2", "gemma", "gpt2", "gpt_neox", "phi", "mixtral", "nemotron_h", "gemma3"]
METADATA = {"format": "pt"}


def change(folder: Path, renamed: Callable[[str], str], **values: Any) -> None:
    """The folder's single file with other names, and `values` added or replaced."""
    tensors = {renamed(name): tensor for name, tensor in load_file(folder / SINGLE).items()}
    save_file({**tensors, **values}, folder / SINGLE, METADATA)


def configure(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def place(folder: Path) -> PlacedWeights:
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    with torch.device("meta"):
        outline = type(loaded)(loaded.config)
    placed = place_weights(Checkpoint(folder, getattr(loaded.config, "transformers_weights", None)), outline)
    inputs, outputs = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    assert torch.equal(placed.table.load(), inputs.weight)
    assert (placed.head is None) is (inputs.weight is outputs.weight)
    assert torch.equal((placed.head or placed.table).load(), outputs.weight)
    assert (placed.bias is None) is (getattr(outputs, "bias", None) is None)
    if placed.bias is not None:
        assert torch.equal(placed.bias.load(), outputs.bias)
    return placed


def test_a_file_goes_before_an_older_index(tmp_path: Path) -> None:
    network: Any = make_network("llama", 50)
    network.save_pretrained(tmp_path, max_shard_size="20KB")
    network.get_input_embeddings().weight.add_(1)
    network.get_output_embeddings().weight.add_(1)
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, tmp_path / SINGLE, METADATA)
    assert (tmp_path / INDEX).is_file()
    assert place(tmp_path).table.file == tmp_path / SINGLE


def test_an_index_whose_shards_are_gone_does_not_matter_beside_a_file(tmp_path: Path) -> None:
    make_network("llama", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}))
    place(tmp_path)


def test_a_shard_with_a_tensor_that_the_index_has_elsewhere(tmp_path: Path) -> None:
    make_network("llama", 50).save_pretrained(tmp_path, max_shard_size="20KB")  # type: ignore[operator]
    index = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    older = {"model.embed_tokens.weight": torch.zeros(50, 32), "lm_head.weight": torch.ones(50, 32)}
    last = tmp_path / max(index.values())
    assert {index[name] for name in older} != {last.name}
    save_file({**older, **load_file(last)}, last, METADATA)
    place(tmp_path)


def test_a_file_that_the_config_names(tmp_path: Path) -> None:
    network: Any = make_network("llama", 50)
    network.save_pretrained(tmp_path)
    network.get_input_embeddings().weight.add_(1)
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, tmp_path / "other.safetensors")
    configure(tmp_path, transformers_weights="other.safetensors")
    assert place(tmp_path).table.file == tmp_path / "other.safetensors"


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    make_network("llama", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    (tmp_path / "inner").mkdir()
    with pytest.raises(ModelError):
        Checkpoint(tmp_path / "inner", f"../{SINGLE}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", ["50GB", "20KB"])
def test_every_family(family: str, shards: str, tmp_path: Path) -> None:
    make_network(family, 50).save_pretrained(tmp_path, max_shard_size=shards)  # type: ignore[operator]
    placed = place(tmp_path)
    assert not placed.unfilled
    assert not placed.unused


@pytest.mark.parametrize("family", FAMILIES)
def test_names_as_the_network_has_them(family: str, tmp_path: Path) -> None:
    """Not as its family's checkpoints have them: an older or newer transformers may have written them."""
    network: Any = make_network(family, 50)
    network.save_pretrained(tmp_path)
    own = {name: tensor.clone() for name, tensor in network.state_dict().items() if not name.startswith("lm_head.w")}
    head = network.get_output_embeddings().weight
    tied = head is network.get_input_embeddings().weight
    save_file(own if tied else {**own, "lm_head.weight": head.clone()}, tmp_path / SINGLE, METADATA)
    place(tmp_path)


def test_names_without_the_network_s_prefix(tmp_path: Path) -> None:
    """GPT-2's own files say `wte.weight`, its network `transformer.wte.weight`."""
    make_network("gpt2", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    change(tmp_path, lambda name: name.removeprefix("transformer."))
    assert place(tmp_path).table.name == "wte.weight"


@pytest.mark.parametrize("added", [0.0, 1.0], ids=["equal", "different"])
def test_a_tied_table_that_is_stored_twice(added: float, tmp_path: Path) -> None:
    """transformers ties the two only if they are equal, whatever the config says."""
    network: Any = make_network("gemma", 50)
    network.save_pretrained(tmp_path)
    head = {"lm_head.weight": network.get_input_embeddings().weight + added}
    change(tmp_path, lambda name: name, **head)
    assert (place(tmp_path).head is None) is (added == 0)


def test_a_tied_table_that_is_stored_as_output_rows(tmp_path: Path) -> None:
    make_network("gemma", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    change(tmp_path, lambda name: "lm_head.weight" if name == "model.embed_tokens.weight" else name)
    placed = place(tmp_path)
    assert (placed.table_name, placed.head_name) == ("model.embed_tokens.weight", "lm_head.weight")


def test_weights_of_a_quantised_model_are_not_built(tmp_path: Path) -> None:
    """Quantised layers have other tensors than the network; the tables are found all the same."""
    make_network("llama", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    change(tmp_path, lambda name: name.replace("proj.weight", "proj.qweight"))
    configure(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    placed = place_weights(Checkpoint(tmp_path), outline)
    assert placed.table.name == "model.embed_tokens.weight"
    assert len(placed.unfilled) == len(placed.unused) == 14


def test_a_table_of_another_size_is_refused(tmp_path: Path) -> None:
    make_network("llama", 50).save_pretrained(tmp_path)  # type: ignore[operator]
    with torch.device("meta"):
        outline = make_network("llama", 60)
    with pytest.raises(ModelError, match=str(tmp_path)):
        place_weights(Checkpoint(tmp_path), outline)
