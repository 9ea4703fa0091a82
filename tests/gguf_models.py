"""GGUF files of tiny models, written as llama.cpp's converter writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}
ARCHITECTURES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}


def write_gguf(file: Path, network: Any, tokenizer: Any, quantization: str = "Q8_0") -> Path:
    """A GGUF file of a Qwen2 or Llama network and its byte-level BPE tokenizer. Returns: the file."""
    config = network.config
    writer = GGUFWriter(file, config.model_type)
    writer.add_name("tiny")
    writer.add_file_type(FILE_TYPES[quantization])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    _add_tensors(writer, network, quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: GGUFWriter, tokenizer: Any, size: int) -> None:
    names = {token: text for text, token in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([names.get(token, f"[PAD{token}]") for token in range(size)])
    kinds = {token: TokenType.CONTROL if text.special else TokenType.USER_DEFINED for token, text in added.items()}
    writer.add_token_types([kinds.get(token, TokenType.NORMAL) for token in range(size)])
    state = tokenizer.backend_tokenizer.__getstate__().decode()
    writer.add_token_merges([" ".join(pair) for pair in _merges(state)])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _merges(state: str) -> list[list[str]]:
    import json

    return [pair.split(" ") if isinstance(pair, str) else pair for pair in json.loads(state)["model"]["merges"]]


def _add_tensors(writer: GGUFWriter, network: Any, quantization: str) -> None:
    config, kind = network.config, GGMLQuantizationType[quantization]
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        content = tensor.float().numpy()
        if config.model_type == "llama" and (which := re.search(r"\.([qk])_proj\.weight", name)):
            content = _permuted(content, config.num_attention_heads if which[1] == "q" else config.num_key_value_heads)
        stored_as = kind if content.ndim == 2 else GGMLQuantizationType.F32
        packed = gguf.quants.quantize(content, stored_as)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), packed, raw_dtype=stored_as)


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a Llama's queries or keys in llama.cpp's order, which pairs them for its rotary embedding."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
