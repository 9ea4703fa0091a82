"""The frozen language model: loading, its embedding table, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from embedgrad_cli.config.schema import LaunchConfig, ModelConfig
from embedgrad_cli.core.kernels.memory import OutOfMemory, is_out_of_memory
from embedgrad_cli.core.kernels.packed_linear import is_plain
from embedgrad_cli.core.kernels.shared_prefix_attention import prepare_attention
from embedgrad_cli.core.model.device_check import why_unfit
from embedgrad_cli.core.model.laid_out import check_laid_out, lies_on_several, loading_over_devices
from embedgrad_cli.core.model.pinned_template import original_of, pinned_day
from embedgrad_cli.core.model.precision import settle_precision, settle_precision_on_gpu
from embedgrad_cli.core.model.quantized import named, quantization_of, quantized_loading, settle_quantized
from embedgrad_cli.core.model.shards import read_index
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, find_turn_end, from_pretrained, load_tokenizer, loading
from embedgrad_cli.core.model.unpacked_gguf import gguf_record, place_of
from embedgrad_cli.errors import ModelError, UserError
from embedgrad_cli.storage.artifact_metadata import Fingerprint
from embedgrad_cli.storage.gguf_files import GgufRecord
from embedgrad_cli.storage.hub_access import COMMIT
from embedgrad_cli.storage.quantization import QuantizationRecord

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

    def embedding_table(self) -> Any:
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


def pick_device(name: str, is_trusted: bool = True) -> torch.device:
    """`auto` is the first CUDA device, else Apple's, else the CPU; a GPU that computes wrong is left out.

    Args: is_trusted: the user named it; False tries it out, as `auto` does (`core.model.device_check`).

    Raises:
        UserError: the named device does not exist here, or it was tried out and computes wrong.
    """
    if name == "auto":
        name = _first_that_computes()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if not is_trusted and (reason := why_unfit(device)):
            raise RuntimeError(f"{reason}.")
    except Exception as error:
        raise UserError(
            f"device={name} cannot be used here: {str(error).splitlines()[0]} Use device=cpu, or device=auto."
        ) from error
    return device


def _first_that_computes() -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in [name for name, is_there in there.items() if is_there]:
        reason = why_unfit(torch.device(name))
        if reason is None:
            return name
        log.warning("device=auto leaves out %s: %s", name, reason)
    return "cpu"


def load_model(config: ModelConfig, device: torch.device, launch: LaunchConfig | None = None) -> LanguageModel:
    """Load a model and tokenizer from a hub id, a local folder or a GGUF file, freeze it, and prepare its attention.

    Args:
        device: where it lies as a whole, or this process's part of it.
        launch: says whether it lies on several devices, or is divided between processes; None: neither.

    Raises:
        ModelError: it cannot be found, read, or is not a causal LM with a fast tokenizer; or it is quantised in a way
            that no gradient comes back through, or whose library is not installed; or it cannot be laid out so.
        OutOfMemory: its weights do not fit on the device.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    launch = launch or LaunchConfig()
    with loading(config):
        known = load_tokenizer(config)
        _check_files(config)
        shape = from_pretrained(AutoConfig, config)
        quantization = quantization_of(config, shape)
        settings = {"dtype": config.dtype, "attn_implementation": attention_of(config, shape)}
        settings |= quantized_loading(config, quantization, device)
        settings |= loading_over_devices(config, launch, shape, quantization)
        # Safetensors only: a pickled checkpoint can run code while it is read.
        with named(config, quantization):
            network = from_pretrained(AutoModelForCausalLM, config, use_safetensors=True, **settings)
    network.requires_grad_(False).eval()
    check_laid_out(network, config, device, launch)
    is_divided, on_several = launch.tensor_parallel is not None, lies_on_several(network)
    is_laid_out = is_divided or on_several
    takes_precision = config.dtype == "auto" and quantization is None and not is_laid_out
    if takes_precision and device.type == "cuda":
        settle_precision_on_gpu(network)
    if not is_laid_out:
        _move(network, device, config)
    if quantization is not None:
        settle_quantized(network, config, quantization)
    elif takes_precision and device.type == "cpu":
        settle_precision(network)
    reads_trunk_in_place = not on_several and prepare_attention(network)
    kind = "chat" if known.is_chat else "plain"
    revision = _commit(config)
    source = f"{config.path}@{revision}" if revision else config.path
    packed = f", quantised as {quantization.name}" if quantization else ""
    where = f"{device}, divided" if is_divided else "several devices" if on_several else str(device)
    log.info("model %s: %s on %s%s, %s template", source, network.dtype, where, packed, kind)
    return LanguageModel(
        network,
        known.tokenizer,
        config.path,
        revision,
        known.is_chat,
        reads_trunk_in_place,
        gguf_record(config.path),
        quantization,
        is_divided,
    )


def attention_of(config: ModelConfig, shape: Any) -> str | None:
    """The implementation that the user chose; None leaves it to transformers, except where that may change results.

    Gemma 2 caps attention's scores. PyTorch's own attention (sdpa) has no such cap, and some versions of transformers
    leave it out without a word.

    Args: shape: the model's own config.

    Raises:
        ModelError: the chosen one has no cap, and the model needs one.
    """
    cap = getattr(shape.get_text_config(), "attn_logit_softcapping", None)
    if cap is None:
        return config.attention
    if config.attention == "sdpa":
        raise ModelError(
            f"model.attention=sdpa: {config.path} caps the scores of its attention at {cap:g} "
            "(attn_logit_softcapping), and sdpa would leave that out. Use model.attention=eager, or null."
        )
    return "eager"


def _move(network: Any, device: torch.device, config: ModelConfig) -> None:
    """Move the weights to the device.

    Raises:
        OutOfMemory: they do not fit.
    """
    try:
        network.to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        raise OutOfMemory(
            f"model.path={config.path}: its weights take {size / 1e9:.1f} GB, and {device} has not so much memory "
            "free. model.dtype=bfloat16 takes half of float32; or use a smaller model, or another device."
        ) from error


def load_outline(config: ModelConfig) -> tuple[LanguageModel, Path]:
    """A model without its weights: tokenizer, config and the network's shape, its parameters on the meta device.

    Returns: the model, and the folder with its files (a snapshot in the hub's cache, if it comes from there).

    Raises:
        ModelError: as `load_model`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    with loading(config):
        folder = _folder_of(config)
        local = replace(config, path=str(folder), revision=None)
        known = load_tokenizer(local)
        shape = from_pretrained(AutoConfig, local)
        as_stored = replace(local, quantization=None)  # whatever loads it
        quantization = quantization_of(as_stored, shape)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(shape, trust_remote_code=config.trust_remote_code)
        if (folder / "generation_config.json").is_file():
            network.generation_config = GenerationConfig.from_pretrained(folder)
    commit, gguf = _commit(config), gguf_record(config.path)
    tokenizer, is_chat = known.tokenizer, known.is_chat
    return LanguageModel(network, tokenizer, config.path, commit, is_chat, gguf=gguf, quantization=quantization), folder


def _check_files(config: ModelConfig) -> None:
    """Refuse a model whose own files send the reader elsewhere.

    Raises:
        ModelError: it is an adapter, whose weights are another model's, or an index names files of other folders.
    """
    from transformers.utils import find_adapter_config_file

    path = place_of(config.path)
    if find_adapter_config_file(path, revision=config.revision) is not None:
        raise ModelError(
            f"model.path={config.path} is an adapter (it has an adapter_config.json) of another model. Merge the two, "
            "save the model with `save_pretrained`, and give its folder: model.path=DIR."
        )
    if Path(path).is_dir():  # of the hub's, its library lets no name leave the cache
        read_index(Path(path))


def _commit(config: ModelConfig) -> str | None:
    """The commit that a model of the hub was just read at, as the hub's cache has it; a folder has none."""
    if Path(place_of(config.path)).is_dir():
        return config.revision
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    commit = Path(file).parent.name if isinstance(file, str) else ""
    return commit if COMMIT.fullmatch(commit) else config.revision


def _folder_of(config: ModelConfig) -> Path:
    """The model's own folder, or the snapshot of a hub id, downloaded if it is not in the cache."""
    path = Path(place_of(config.path))
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*"]
    wanted += ["*.py"] if config.trust_remote_code else []
    return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=wanted))
