"""A byte-level BPE tokenizer as a GGUF file describes it.

llama.cpp splits text before its merges by patterns that it knows by name. Its own converter finds the name by a hash of
the token ids of a sample text, and so knows vocabularies rather than patterns. Here it is found by the patterns of the
tokenizer: one with another vocabulary is known as well, and none that splits otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedgrad_cli.core.model.chat_rendering import apply_template
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports.artifact_source import Source
from embedgrad_cli.exports.chat_template import told_nothing
from embedgrad_cli.storage.record import Json

if TYPE_CHECKING:
    from gguf import GGUFWriter

BYTES, DIGITS = "ByteLevel's own", "each digit alone"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What splits text, and whether whole words of the vocabulary are taken before any merge: llama.cpp's name for both.
PRE_TOKENIZERS = {
    ((BYTES,), False): "gpt-2",
    ((DIGITS, BYTES), False): "smollm",
    ((_WORDS + r"\p{N}" + _REST,), False): "qwen2",
    ((_WORDS + r"\p{N}{1,3}" + _REST,), True): "llama-bpe",
}
SUPPRESSED = "tokenizer.ggml.suppress_tokens"  # read by llama.cpp since 2026; the `gguf` package has no method for it


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer. `kinds` are `gguf.TokenType`s, `ends` the tokens that end an answer."""

    pre_tokenizer: str
    texts: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    ends: Sequence[int]
    begin: int | None
    pad: int | None
    adds_begin: bool
    template: str | dict[str, str]

    def add_to(self, writer: GGUFWriter, suppressed: Sequence[int]) -> None:
        """`suppressed` are the tokens that no answer may hold."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(self.texts)
        writer.add_token_types(self.kinds)
        writer.add_token_merges(self.merges)
        # llama.cpp has three keys for what ends an answer; it knows the usual ones by their texts as well.
        for add, end in zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), self.ends):  # noqa: B905
            add(end)
        if self.begin is not None:
            writer.add_bos_token_id(self.begin)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(self.adds_begin)
        writer.add_array(SUPPRESSED, list(suppressed))
        if isinstance(self.template, str):
            writer.add_chat_template(self.template)
        else:
            writer.add_chat_template([{"name": name, "template": text} for name, text in self.template.items()])


def pre_tokenizer_of(source: Source) -> str:
    """llama.cpp's name for the way in which the model's tokenizer splits text.

    Raises:
        UserError: there is none, or the tokenizer is not of this kind.
    """
    name = name_of(source.model.tokenizer)
    if name is None:
        raise UserError(
            f"model.path={source.model.path}: format=gguf does not know llama.cpp's name for the way in which this "
            f"tokenizer splits text. Known are {', '.join(PRE_TOKENIZERS.values())}, all of them byte-level BPE. Write "
            "format=model, and give that folder to llama.cpp's own convert_hf_to_gguf.py, which knows more."
        )
    return name


def name_of(tokenizer: Any) -> str | None:
    """The same for a tokenizer of transformers; None if there is none.

    Some tokenizers normalise Unicode first (NFC). llama.cpp never does, and nearly all text is normal as it is.
    """
    described: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer = described["model"], described["normalizer"]
    steps = _steps(described["pre_tokenizer"])
    if model["type"] != "BPE" or steps is None or (normalizer or {"type": "NFC"})["type"] != "NFC":
        return None
    return PRE_TOKENIZERS.get((steps, bool(model.get("ignore_merges"))))


def vocabulary_of(source: Source, tokenizer: Any, pre_tokenizer: str, num_rows: int) -> Vocabulary:
    """What stands in the file: of the tokenizer with the prompt's tokens, and a name for every row of the table."""
    from gguf import TokenType

    described: Json = json.loads(tokenizer.backend_tokenizer.to_str())
    texts = {token: text for text, token in tokenizer.get_vocab().items()}
    marks = tokenizer.added_tokens_decoder.items()
    added = {token: TokenType.CONTROL if one.special else TokenType.USER_DEFINED for token, one in marks}
    kinds = [added.get(row, TokenType.NORMAL if row in texts else TokenType.UNUSED) for row in range(num_rows)]
    asked = [{"role": "user", "content": source.probes[0][0]}]
    rendered = apply_template(tokenizer, asked, add_generation_prompt=True)
    begins = tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    first = tokenizer.eos_token_id
    return Vocabulary(
        pre_tokenizer,
        [texts.get(row, f"[PAD{row}]") for row in range(num_rows)],
        [int(kind) for kind in kinds],
        [pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"]],
        sorted(source.model.end_ids, key=lambda end: (end != first, end)),
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
        # llama.cpp puts this token in front of a conversation too, unless the chat template has written it.
        begins and rendered.startswith(tokenizer.bos_token),
        told_nothing(tokenizer.chat_template),
    )


def _steps(part: Json | None) -> tuple[str, ...] | None:
    """What a pre-tokenizer of tokenizer.json splits by, one after the other; None if llama.cpp has no such thing."""
    match part:
        case {"type": "Sequence", "pretokenizers": [*parts]}:
            found = [_steps(one) for one in parts]
            return None if None in found else tuple(step for one in found for step in one or ())
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            return (pattern,)
        case {"type": "Digits", "individual_digits": True}:
            return (DIGITS,)
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": bool(splits)}:
            return (BYTES,) if splits else ()
    return None
