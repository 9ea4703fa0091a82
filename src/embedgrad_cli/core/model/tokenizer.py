"""A model's tokenizer, which can be had without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedgrad_cli import assets
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.errors import ModelError
from embedgrad_cli.storage.hub_access import offline_if_out_of_reach


@dataclass
class ModelTokenizer:
    """The tokenizer of a model without its weights; `is_chat` as in `LanguageModel`."""

    tokenizer: Any
    is_chat: bool

    @property
    def turn_end_id(self) -> int | None:
        """The token after an assistant's answer.

        A chat template is asked for it, because base models often name another token as their end of text.
        """
        if not self.is_chat:
            return self.tokenizer.eos_token_id
        marker = "\ue010"
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": marker}]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False)
        after = self.tokenizer(rendered.partition(marker)[2], add_special_tokens=False)["input_ids"]
        return after[0] if after else self.tokenizer.eos_token_id


def load_tokenizer(config: ModelConfig) -> ModelTokenizer:
    """Load a model's tokenizer alone.

    Raises:
        ModelError: it cannot be found or read, is not a fast one, or has no chat template where one is asked for.
    """
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, config)
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
    return ModelTokenizer(tokenizer, has_template if config.template == "auto" else config.template == "chat")


def from_pretrained(loader: Any, config: ModelConfig, **settings: Any) -> Any:
    """What `loader` (an Auto class of transformers) makes of a hub id or a local folder.

    Raises:
        ModelError: it cannot be found or read.
    """
    settings |= {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    with loading(config):
        return loader.from_pretrained(assets.resolve(config.path), **settings)


@contextmanager
def loading(config: ModelConfig) -> Iterator[None]:
    """Within it transformers and the hub are quiet, and what they raise becomes a `ModelError`."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    is_here = Path(assets.resolve(config.path)).is_dir()
    try:
        with nullcontext() if is_here else offline_if_out_of_reach():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(_loading_paragraph(config, error)) from error


def _loading_paragraph(config: ModelConfig, error: Exception) -> str:
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        files = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        return (
            f"model.path={config.path} is a folder that cannot be loaded as a causal language model: "
            f"{_first_line(error)} Expected are config.json, tokenizer files and *.safetensors weights; found: {files}."
        )
    revision = f" at model.revision={config.revision}" if config.revision else ""
    another = " Another revision is model.revision=NAME." if config.revision else ""
    return (
        f"model.path={config.path}{revision} could not be loaded from the hub: {_first_line(error)}{another} "
        "If the hub is not in reach, download the model elsewhere and point at its folder with "
        "model.path=/path/to/folder; a gated model needs `hf auth login` first."
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith((".", "!", "?")) else line + "."
