"""A model's tokenizer, which can be had without its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.chat_rendering import Refused, apply_template, refuse_powers
from embedgrad_cli.core.model.pinned_template import pin
from embedgrad_cli.core.model.unpacked_gguf import place_of
from embedgrad_cli.errors import ModelError, first_line
from embedgrad_cli.storage.hub_access import offline_if_out_of_reach

# An added token that is no special one may end a turn if it is written like one: "<|im_end|>", not ".\n" or "apple".
MARKUP = re.compile(r"[^\w\s]\S*\w\S*[^\w\s]")


@dataclass
class ModelTokenizer:
    """The tokenizer of a model without its weights; `is_chat` as in `LanguageModel`."""

    tokenizer: Any
    is_chat: bool


@dataclass(frozen=True)
class TurnEnd:
    """How an assistant's turn ends: the text that is written after an answer, then a token (None: without any)."""

    text: str
    token_id: int | None


def find_turn_end(tokenizer: Any, is_chat: bool) -> TurnEnd:
    """The first token after an assistant's answer that marks something, and the text in front of it.

    A chat template is asked for it, because base models often name another token as their end of text. White space and
    plain text end no turn: "answer\\n<|im_end|>" ends with `<|im_end|>`. Where the template writes no marking token
    (its markers may be plain text to this tokenizer), it is the tokenizer's own end of text.
    """
    if is_chat:
        after = _after_answer(tokenizer)
        encoded = tokenizer(after, add_special_tokens=False, return_offsets_mapping=True)
        marks = _marking_tokens(tokenizer)
        for token, (begin, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in marks:
                return TurnEnd(after[:begin], token)
    return TurnEnd("", tokenizer.eos_token_id)


def _after_answer(tokenizer: Any) -> str:
    """What a chat template writes behind an answer; nothing where it refuses answers."""
    answer = "\ue010"
    turns = [{"role": role, "content": text} for role, text in (("system", "!"), ("user", "?"), ("assistant", answer))]
    for messages in (turns[1:], turns):  # some refuse a conversation without a system turn, others one with it
        try:
            return apply_template(tokenizer, messages).partition(answer)[2]
        except Refused:
            pass
    return ""


def _marking_tokens(tokenizer: Any) -> set[int]:
    """Special tokens, and added ones that are written like them; never white space, or what stands for unknown text."""
    added = tokenizer.added_tokens_decoder
    marks = {token for token, text in added.items() if text.special or MARKUP.fullmatch(text.content.strip())}
    blank = {token for token, text in added.items() if not text.content.strip("\u2581 \t\r\n")}
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    return (marks | set(tokenizer.all_special_ids)) - blank - unknown


def load_tokenizer(config: ModelConfig) -> ModelTokenizer:
    """Load a model's tokenizer alone. What its chat template is told, and the day, are fixed in it: see `pin`.

    Raises:
        ModelError: it cannot be found or read, is not a fast one, has no chat template where one is asked for, or one
            that does not read what it is to be told or computes powers.
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
    is_chat = has_template if config.template == "auto" else config.template == "chat"
    if is_chat:
        day = date.fromisoformat(config.chat_template_date) if config.chat_template_date else today()
        refuse_powers(tokenizer.chat_template)
        tokenizer.chat_template = pin(tokenizer.chat_template, config.chat_template_kwargs, day)
    return ModelTokenizer(tokenizer, is_chat)


def today() -> date:
    """The day that it is here."""
    return datetime.now().astimezone().date()


def from_pretrained(loader: Any, config: ModelConfig, **settings: Any) -> Any:
    """What `loader` (an Auto class of transformers) makes of a hub id or a local folder.

    Raises:
        ModelError: it cannot be found or read.
    """
    settings |= {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    with loading(config):
        return loader.from_pretrained(place_of(config.path), **settings)


@contextmanager
def loading(config: ModelConfig) -> Iterator[None]:
    """Within it transformers and the hub are quiet, and what they raise becomes a `ModelError`."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    is_here = Path(place_of(config.path)).is_dir()
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
            f"{_sentence(error)} Expected are config.json, tokenizer files and *.safetensors weights; found: {files}."
        )
    revision = f" at model.revision={config.revision}" if config.revision else ""
    another = " Another revision is model.revision=NAME." if config.revision else ""
    return (
        f"model.path={config.path}{revision} could not be loaded from the hub: {_sentence(error)}{another} "
        "If the hub is not in reach, download the model elsewhere and point at its folder with "
        "model.path=/path/to/folder; a gated model needs `hf auth login` first."
    )


def _sentence(error: Exception) -> str:
    line = first_line(error)
    return line if line.endswith((".", "!", "?")) else line + "."
