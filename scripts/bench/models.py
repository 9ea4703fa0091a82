"""Random-weight models: small bodies for a CPU, real shapes from a `config.json` for a GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from embedgrad_cli.core.kernels.shared_prefix_attention import prepare_attention
from embedgrad_cli.core.model.language_model import LanguageModel

VOCABULARY = 32_000
# hidden, intermediate, layers, heads, key-value heads; named by their parameters with a vocabulary of 32,000
SIZES = {
    "1M": (32, 64, 2, 2, 1),
    "5M": (128, 512, 4, 4, 2),
    "16M": (256, 1024, 8, 8, 2),
    "62M": (512, 2048, 12, 8, 2),
    "128M": (768, 3072, 12, 12, 4),
}


@dataclass(frozen=True)
class ModelSpec:
    """All that another process needs to make the same model.

    Args:
        shape: a name in `SIZES`, or the path of a `config.json`.
        vocabulary: replaces the shape's own.
    """

    shape: str = "16M"
    vocabulary: int | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return (
            self.shape if self.shape in SIZES else Path(self.shape).name.removesuffix(".json").removesuffix(".config")
        )

    def make(self) -> Any:
        """The frozen network with random weights, the same every time."""
        settings = _settings(self.shape)
        if self.vocabulary:
            settings["vocab_size"] = self.vocabulary
        config = AutoConfig.for_model(**settings)
        torch.manual_seed(0)
        with torch.device(self.device):  # a large model is not made in main memory first
            network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, self.dtype))
        return network.requires_grad_(False).eval()


def language_model(network: Any, tokenizer: Any = None) -> LanguageModel:
    """The network as the product sees it, its attention prepared as `load_model` prepares it."""
    return LanguageModel(network, tokenizer, "bench", None, False, prepare_attention(network))


def _settings(shape: str) -> dict[str, Any]:
    if shape not in SIZES:
        return json.loads(Path(shape).read_text())
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    small = {"model_type": "qwen2", "vocab_size": VOCABULARY, "tie_word_embeddings": True}
    return small | dict(zip(names, SIZES[shape], strict=True))
