"""From a model's settings to a `LanguageModel`: its files are found and checked, its weights loaded and frozen."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from embedgrad_cli.config.schema import LaunchConfig, ModelConfig
from embedgrad_cli.core.kernels.memory import OutOfMemory, is_out_of_memory
from embedgrad_cli.core.kernels.shared_prefix_attention import prepare_attention
from embedgrad_cli.core.model.laid_out import check_laid_out, lies_on_several, loading_over_devices
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.precision import settle_precision, settle_precision_on_gpu
from embedgrad_cli.core.model.quantized import named, quantization_of, quantized_loading, settle_quantized
from embedgrad_cli.core.model.shards import read_index
from embedgrad_cli.core.model.tokenizer import from_pretrained, load_tokenizer, loading
from embedgrad_cli.core.model.unpacked_gguf import gguf_record, place_of
from embedgrad_cli.errors import ModelError
from embedgrad_cli.storage.hub_access import COMMIT
from embedgrad_cli.storage.quantization import QuantizationRecord

log = logging.getLogger(__name__)


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
    _settle(network, config, device, quantization, is_laid_out=is_divided or on_several)
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


def _settle(
    network: Any,
    config: ModelConfig,
    device: torch.device,
    quantization: QuantizationRecord | None,
    is_laid_out: bool,
) -> None:
    """Bring the weights to the device, in the precision that `dtype=auto` comes to there.

    For a GPU they are rounded before they are moved, so that it need not hold them in float32.

    Args: is_laid_out: they lie where they belong already, divided or on several devices.
    """
    takes_precision = config.dtype == "auto" and quantization is None and not is_laid_out
    if takes_precision and device.type == "cuda":
        settle_precision_on_gpu(network)
    if not is_laid_out:
        _move(network, device, config)
    if quantization is not None:
        settle_quantized(network, config, quantization)
    elif takes_precision and device.type == "cpu":
        settle_precision(network)


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
