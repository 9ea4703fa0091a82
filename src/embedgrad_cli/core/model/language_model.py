"""The frozen language model: its embedding table, its fingerprint, what ends its turns. `load` makes one of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from embedgrad_cli.core.kernels.packed_linear import is_plain
from embedgrad_cli.core.model.laid_out import lies_on_several
from embedgrad_cli.core.model.pinned_template import original_of, pinned_day
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, find_turn_end
from embedgrad_cli.storage.artifact_metadata import Fingerprint
from embedgrad_cli.storage.gguf_files import GgufRecord
from embedgrad_cli.storage.quantization import QuantizationRecord

# Config entries that say what a model is. Not all of them: libraries add some with every release.
IDENTITY_KEYS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)
DTYPES: dict[torch.dtype, Literal["float32", "bfloat16", "float16"]] = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
TABLE_CHUNK = 16_384  # rows of the embedding table looked at in one go


@dataclass
class LanguageModel:
    """A causal language model whose weights never change, with its tokenizer.

    Nothing here changes the network, neither making this nor reading from it.

    Args:
        network: a `transformers` causal LM in eval mode.
        path, revision: where it came from; they go into artifacts. The revision of a model of the hub is its commit.
        is_chat: whether conversations are rendered with the tokenizer's chat template.
        reads_trunk_in_place: whether its attention reads a shared prefix (trunk) without a copy for each row, as
            `prepare_attention` said when it was given the network.
        gguf: the GGUF file that it was unpacked from, if it was.
        quantization: how its weights are quantised, if they are.
        is_divided: each process of the run has a part of every layer, so all of them have to ask it the same.
        longest_tried: tokens of the longest example on which a shared prefix was tried out and found right.
    """

    network: Any
    tokenizer: Any
    path: str
    revision: str | None
    is_chat: bool
    reads_trunk_in_place: bool = False
    gguf: GgufRecord | None = None
    quantization: QuantizationRecord | None = None
    is_divided: bool = False
    longest_tried: int = 0

    @property
    def model_tokenizer(self) -> ModelTokenizer:
        """The tokenizer alone, for what needs no weights."""
        return ModelTokenizer(self.tokenizer, self.is_chat)

    @property
    def device(self) -> torch.device:
        return self.network.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.get_input_embeddings().weight.dtype

    @property
    def dtype_name(self) -> Literal["float32", "bfloat16", "float16"]:
        """As `model.dtype` has it."""
        return DTYPES[self.dtype]

    @property
    def hidden_size(self) -> int:
        return self.network.get_input_embeddings().weight.shape[1]

    @property
    def max_length(self) -> int | None:
        """Longest sequence the model was built for, in tokens; None when its config does not say."""
        length = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        return length if length and length > 0 else None  # XLNet says -1

    @property
    def sliding_window(self) -> int | None:
        """Tokens that a layer of the shortest sight sees, by a window or in chunks; None when all see everything."""
        config = self.network.config.get_text_config()
        layer_types = getattr(config, "layer_types", None) or ["sliding_attention"]  # it may name a window alone
        sights = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
        seen = (getattr(config, sights[kind], None) for kind in set(layer_types) & sights.keys())
        return min((tokens for tokens in seen if tokens is not None), default=None)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings as the network itself would compute them: the *module's* output, scaled where it scales.

        Args: ids `[...]`. Returns: `[..., hidden_size]` in the model's dtype.
        """
        return self.network.get_input_embeddings()(ids)

    @cached_property
    @torch.no_grad()
    def has_plain_head(self) -> bool:
        """Whether logits are the output layer's and nothing else: some models cap or scale them afterwards.

        Looked at in numbers, because no config says it for all models: on a few tokens, with what goes into the layer
        enlarged, so that a cap shows. Where weights have no numbers (the meta device), logits must be its very output.
        Where layers are on several devices, what goes into it and comes out of it is moved around the network alone.
        """
        layer = self.network.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear) or not is_plain(layer.weight) or lies_on_several(self.network):
            return False
        seen, given = list[Tensor](), list[Tensor]()

        def enlarge(_: torch.nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            seen.append(arguments[0] * 32)
            return (seen[0],)

        handles = [
            layer.register_forward_pre_hook(enlarge),
            layer.register_forward_hook(lambda _, args, output: given.append(output)),
        ]
        try:
            logits = self.network(input_ids=torch.arange(8, device=self.device)[None], use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return logits is given[0] if logits.is_meta else torch.equal(layer(seen[0]), logits)

    @cached_property
    def embedding_rms(self) -> float:
        """Root mean square over all entries of the embedding table: the unit of learning rates and radii."""
        total, count = 0.0, 0
        with torch.no_grad():
            for _, rows in self.embedding_table():
                total += rows.float().square().sum().item()
                count += rows.numel()
        return (total / count) ** 0.5

    def embedding_table(self) -> Iterator[tuple[int, Tensor]]:
        """Yield `(first id, rows [n, hidden_size])` over the whole vocabulary, as `embed` gives them."""
        size = self.network.get_input_embeddings().weight.shape[0]
        for start in range(0, size, TABLE_CHUNK):
            yield start, self.embed(torch.arange(start, min(start + TABLE_CHUNK, size), device=self.device))

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Hashes of what must not differ between the model an artifact was made for and the one it is used with."""
        config = {key: getattr(self.network.config, key, None) for key in IDENTITY_KEYS}
        tokenizer = {"vocabulary": self.tokenizer.get_vocab(), "template": original_of(self.tokenizer.chat_template)}
        return Fingerprint(config=_digest(config), tokenizer=_digest(tokenizer))

    @property
    def chat_template_date(self) -> str | None:
        """The day that conversations are rendered for, `YYYY-MM-DD`; None where the chat template writes no date."""
        return pinned_day(self.tokenizer.chat_template)

    @cached_property
    def end_ids(self) -> set[int]:
        """Token ids that end an answer: the chat turn's end and whatever the model itself calls the end."""
        ends = {self.tokenizer.eos_token_id, self.turn_end_id}
        configured = getattr(self.network.generation_config, "eos_token_id", None)
        ends.update(configured if isinstance(configured, list) else [configured])
        return {end for end in ends if end is not None}

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token that ends an assistant's turn: what training targets of `kind: generation` end with."""
        return find_turn_end(self.tokenizer, self.is_chat).token_id


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
