"""A model whose weights are not at hand, or not to be loaded: its tokenizer, and its network on the meta device."""

from __future__ import annotations

from typing import Any

import torch

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.kernels.live_memory import LiveMemory
from embedgrad_cli.core.kernels.shared_prefix_attention import assume_prepared
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import attention_of
from embedgrad_cli.core.model.precision import has_bfloat16, precision_on_gpu
from embedgrad_cli.core.model.quantized import quantization_of
from embedgrad_cli.core.model.tokenizer import from_pretrained, load_tokenizer, loading


def load_unloaded(config: ModelConfig, device_type: str) -> LanguageModel:
    """What `load_model` would give on a device of this type, from the config and the tokenizer alone.

    Its parameters are on the meta device: they have shape and precision, and no content; those of a quantised model are
    not packed. Of a model of the hub nothing but these small files is downloaded.

    Args:
        device_type: as in `torch.device`; such a device need not be here.

    Raises:
        ModelError: the config or the tokenizer cannot be found or read, or it is not the config of a causal LM.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with loading(config):
        known = load_tokenizer(config)
        shape = from_pretrained(AutoConfig, config)
        quantization = quantization_of(config, shape)
        dtype = _dtype(config, shape, device_type)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(
                shape,
                dtype=dtype,
                attn_implementation=attention_of(config, shape),
                trust_remote_code=config.trust_remote_code,
            )
    network.requires_grad_(False).eval()
    in_place = assume_prepared(network, device_type)
    model = LanguageModel(
        network, known.tokenizer, config.path, config.revision, known.is_chat, in_place, quantization=quantization
    )
    with LiveMemory(network, device_type):  # without numbers networks run in it alone
        _ = model.has_plain_head
    return model


def _dtype(config: ModelConfig, shape: Any, device_type: str) -> torch.dtype:
    """The precision that was asked for, or that the weights were saved in, as far as the config says."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    name = getattr(shape.get_text_config(), "dtype", None)
    stored = getattr(torch, name) if isinstance(name, str) else name or torch.float32
    if device_type == "cuda":
        return precision_on_gpu(stored, has_bfloat16())
    return torch.float32 if stored == torch.float64 else stored
