"""Models whose frozen weights are quantised: transformers loads them, and what is loaded is checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.kernels.packed_linear import is_plain, packed_layers, settle_packed, why_not_linear
from embedgrad_cli.errors import ModelError, first_line
from embedgrad_cli.storage.quantization import QUANTIZATIONS, QuantizationRecord, quantization_record

NEEDED = {"bitsandbytes": ("bitsandbytes", "accelerate"), "torchao": ("torchao", "accelerate")}


def quantization_of(config: ModelConfig, shape: Any) -> QuantizationRecord | None:
    """How the weights of a model will be quantised once they are loaded: as its checkpoint is, or as is asked for.

    Args: shape: the model's own config.

    Raises:
        ModelError: the checkpoint is quantised already, and another quantisation is asked for.
    """
    stored = quantization_record(getattr(shape, "quantization_config", None))
    if config.quantization is None:
        return stored
    if stored is not None:
        raise ModelError(
            f"model.quantization={config.quantization}: {config.path} is quantised already, as {stored.name}. Leave "
            "model.quantization out, or give the model that it was made from."
        )
    return QUANTIZATIONS[config.quantization]


def quantized_loading(config: ModelConfig, record: QuantizationRecord | None, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told of a quantised model; nothing for another.

    Raises:
        ModelError: a library that it needs is not installed.
    """
    if record is None:
        return {}
    missing = [name for name in NEEDED.get(record.method, ()) if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{_key(config)} needs the package {missing[0]}, which is not installed: pip install "
            "'embedgrad[quantized]'."
        )
    placed = {"device_map": {"": str(device)}} if find_spec("accelerate") else {}
    return placed | ({"quantization_config": _request(record)} if config.quantization else {})


def _request(record: QuantizationRecord) -> Any:
    """Weights alone are quantised, and of them the matrices of layers: no embeddings, no output layer."""
    if record.method == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=record.kind)
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))


@contextmanager
def named(config: ModelConfig, record: QuantizationRecord | None) -> Iterator[None]:
    """Within it, a quantised model that cannot be loaded is called one.

    Raises:
        ModelError: with what transformers says, such as a library that it needs.
    """
    try:
        yield
    except ModelError as error:
        if record is None or error.__cause__ is None:
            raise
        reason = first_line(error.__cause__).rstrip(".")
        raise ModelError(
            f"{_key(config)} ({record.name}) cannot be loaded here: {reason}. Mend that, or give a model that is not "
            f"quantised, and perhaps model.quantization={' or '.join(QUANTIZATIONS)}."
        ) from error


def settle_quantized(network: Any, config: ModelConfig, record: QuantizationRecord) -> None:
    """Prepare the packed layers, and see that the gradient comes back through them.

    Raises:
        ModelError: it does not, or is not that of the weights; or the embedding table itself is packed.
    """
    settle_packed(network)
    table = network.get_input_embeddings().weight
    if not is_plain(table):
        raise _refused(config, record, "its embedding table is packed too, beside which the prompt's vectors stand")
    for layer in packed_layers(network):
        if reason := why_not_linear(layer, table.device):
            raise _refused(config, record, f"of its layers ({type(layer).__name__}) {reason}")


def _key(config: ModelConfig) -> str:
    return f"model.quantization={config.quantization}" if config.quantization else f"model.path={config.path}"


def _refused(config: ModelConfig, record: QuantizationRecord, reason: str) -> ModelError:
    return ModelError(
        f"{_key(config)} ({record.name}): {reason}, so vectors cannot be optimised through it. Give the model that it "
        f"was made from, and perhaps model.quantization={' or '.join(QUANTIZATIONS)}; or save it dequantised."
    )
