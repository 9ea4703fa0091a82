"""The frozen language model: loading, its embedding table, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedgrad_cli import assets
from embedgrad_cli.errors import ModelError, UserError
from embedgrad_cli.hub import offline_if_out_of_reach
from embedgrad_cli.schema import ModelConfig

log = logging.getLogger(__name__)

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
TABLE_CHUNK = 16_384  # rows of the embedding table looked at in one go


@dataclass
class LanguageModel:
    """A causal language model whose weights never change, with its tokenizer.

    `network` is a `transformers` causal LM in eval mode, `path` and `revision` say where it came from (they go into
    artifacts), `is_chat` whether conversations are rendered with the tokenizer's chat template.
    """

    network: Any
    tokenizer: Any
    path: str
    revision: str | None
    is_chat: bool

    @property
    def device(self) -> torch.device:
        return self.network.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.get_input_embeddings().weight.dtype

    @property
    def hidden_size(self) -> int:
        return self.network.get_input_embeddings().weight.shape[1]

    @property
    def max_length(self) -> int | None:
        """Longest sequence the model was built for, in tokens; None when its config does not say."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    @property
    def sliding_window(self) -> int | None:
        """Tokens a sliding-window layer looks back; None when every layer sees everything."""
        config = self.network.config.get_text_config()
        layer_types = getattr(config, "layer_types", None)
        if layer_types is not None and "sliding_attention" not in layer_types:
            return None
        return getattr(config, "sliding_window", None)

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
        enlarged, so that a cap shows.
        """
        layer = self.network.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear):
            return False
        seen: list[Tensor] = []

        def enlarge(_: torch.nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            seen.append(arguments[0] * 32)
            return (seen[0],)

        handle = layer.register_forward_pre_hook(enlarge)
        try:
            logits = self.network(input_ids=torch.arange(8, device=self.device)[None], use_cache=False).logits
        finally:
            handle.remove()
        return torch.equal(layer(seen[0]), logits)

    @cached_property
    def embedding_rms(self) -> float:
        """Root mean square over all entries of the embedding table: the unit of learning rates and radii."""
        total, count = 0.0, 0
        with torch.no_grad():
            for _, rows in self.embedding_table():
                total += rows.float().square().sum().item()
                count += rows.numel()
        return (total / count) ** 0.5

    def embedding_table(self) -> Any:
        """Yield `(first id, rows [n, hidden_size])` over the whole vocabulary, as `embed` gives them."""
        size = self.network.get_input_embeddings().weight.shape[0]
        for start in range(0, size, TABLE_CHUNK):
            yield start, self.embed(torch.arange(start, min(start + TABLE_CHUNK, size), device=self.device))

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of what must not differ between the model an artifact was made for and the one it is used with."""
        config = {key: getattr(self.network.config, key, None) for key in IDENTITY_KEYS}
        tokenizer = {"vocabulary": self.tokenizer.get_vocab(), "template": self.tokenizer.chat_template}
        return {"config": _digest(config), "tokenizer": _digest(tokenizer)}

    @cached_property
    def end_ids(self) -> set[int]:
        """Token ids that end an answer: the chat turn's end and whatever the model itself calls the end."""
        ends = {self.tokenizer.eos_token_id, self.turn_end_id}
        configured = getattr(self.network.generation_config, "eos_token_id", None)
        ends.update(configured if isinstance(configured, list) else [configured])
        return {end for end in ends if end is not None}

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token after an assistant's answer: what training targets of `kind: generation` end with.

        A chat template is asked for it, because base models often name another token as their end of text.
        """
        if not self.is_chat:
            return self.tokenizer.eos_token_id
        marker = "\ue010"
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": marker}]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False)
        after = self.tokenizer(rendered.partition(marker)[2], add_special_tokens=False)["input_ids"]
        return after[0] if after else self.tokenizer.eos_token_id


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else Apple's, else the CPU.

    Raises:
        UserError: the named device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        raise UserError(
            f"device={name} cannot be used here: {str(error).splitlines()[0]} Use device=cpu, or device=auto."
        ) from error
    return device


def load_model(config: ModelConfig, device: torch.device) -> LanguageModel:
    """Load a model and its tokenizer from a hub id or a local folder and freeze it.

    Raises:
        ModelError: it cannot be found, read, or is not a causal LM with a fast tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quieten_transformers()
    path, source = assets.resolve(config.path), _source(config)
    try:
        with nullcontext() if Path(path).is_dir() else offline_if_out_of_reach():
            tokenizer = AutoTokenizer.from_pretrained(path, **source)
            # Safetensors only: a pickled checkpoint can run code while it is read.
            network = AutoModelForCausalLM.from_pretrained(path, dtype=config.dtype, use_safetensors=True, **source)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(_loading_paragraph(config, error)) from error
    is_chat = _is_chat(config, tokenizer)
    network.requires_grad_(False).eval().to(device)
    log.info("model %s: %s on %s, %s template", config.path, network.dtype, device, "chat" if is_chat else "plain")
    return LanguageModel(network, tokenizer, config.path, config.revision, is_chat)


def load_outline(config: ModelConfig) -> tuple[LanguageModel, Path]:
    """A model without its weights: tokenizer, config and the network's shape, its parameters on the meta device.

    Returns: the model, and the folder with its files (a snapshot in the hub's cache, if it comes from there).

    Raises:
        ModelError: as `load_model`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    _quieten_transformers()
    trusts = config.trust_remote_code
    try:
        folder = _folder_of(config)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusts)
        network_config = AutoConfig.from_pretrained(folder, trust_remote_code=trusts)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(network_config, trust_remote_code=trusts)
        if (folder / "generation_config.json").is_file():
            network.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(_loading_paragraph(config, error)) from error
    is_chat = _is_chat(config, tokenizer)
    return LanguageModel(network, tokenizer, config.path, config.revision, is_chat), folder


def _folder_of(config: ModelConfig) -> Path:
    """The model's own folder, or the snapshot of a hub id, downloaded if it is not in the cache."""
    path = Path(assets.resolve(config.path))
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*"]
    wanted += ["*.py"] if config.trust_remote_code else []
    with offline_if_out_of_reach():
        return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=wanted))


def _source(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision, "trust_remote_code": config.trust_remote_code}


def _quieten_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _is_chat(config: ModelConfig, tokenizer: Any) -> bool:
    """Whether the chat template is used; raises `ModelError` for a tokenizer that embedgrad cannot work with."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"model.path={config.path} has no fast tokenizer (tokenizer.json), which embedgrad needs to find the "
            "prompt's tokens by their characters. Save one next to the model with `tokenizer.save_pretrained`."
        )
    has_template = bool(tokenizer.chat_template)
    if config.template == "chat" and not has_template:
        raise ModelError(
            f"model.template=chat, but the tokenizer of {config.path} has no chat template. "
            "Use model.template=plain, which renders `template.text` instead."
        )
    return has_template if config.template == "auto" else config.template == "chat"


def _loading_paragraph(config: ModelConfig, error: Exception) -> str:
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        files = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        return (
            f"model.path={config.path} is a folder that cannot be loaded as a causal language model: "
            f"{_first_line(error)} Expected are config.json, tokenizer files and *.safetensors weights; found: {files}."
        )
    revision = f" at revision {config.revision}" if config.revision else ""
    return (
        f"model.path={config.path}{revision} could not be loaded from the hub: {_first_line(error)} "
        "If the hub is not in reach, download the model elsewhere and point at its folder with "
        "model.path=/path/to/folder; a gated model needs `hf auth login` first."
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith((".", "!", "?")) else line + "."
