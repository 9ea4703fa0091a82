"""An optimised prompt read as text: the nearest token of each vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from embedgrad_cli.config.fields import SLOT
from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.nearest_tokens import nearest_tokens
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import UserError


@dataclass(frozen=True)
class NearestText:
    """One text per slot, and of each vector: the nearest token, its cosine, and how far away it is.

    `distance` is Euclidean; `relative_distance` is over the length of the token's own embedding.
    """

    texts: list[str]
    ids: list[int]
    cosine: list[float]
    distance: list[float]
    relative_distance: list[float]


def nearest_text(prompt: SoftPrompt, model: LanguageModel) -> NearestText:
    """The nearest token of each vector, by cosine, among those that can be written in a text.

    Raises:
        UserError: the nearest tokens of a slot are white space alone.
    """
    ids, cosines = nearest_tokens(prompt.vectors, model.embedding_table(), forbidden=unwritable(model))
    with torch.no_grad():
        embeddings = model.embed(ids[:, 0]).float()
        distances = (prompt.vectors - embeddings).norm(dim=1)
    texts = texts_of(ids[:, 0].tolist(), prompt.slots, model.tokenizer)
    if not all(texts):
        raise UserError(
            "a slot's nearest tokens are white space alone, so there is no text to read. Nothing was written."
        )
    return NearestText(
        texts=texts,
        ids=ids[:, 0].tolist(),
        cosine=cosines[:, 0].tolist(),
        distance=distances.tolist(),
        relative_distance=(distances / embeddings.norm(dim=1)).tolist(),
    )


def texts_of(ids: Sequence[int], slots: Slots, tokenizer: Any) -> list[str]:
    """The text of each slot, without white space at its edges."""
    parts = torch.tensor(ids).split([len(slot) for slot in slots.ids])
    decoded = (tokenizer.decode(part.tolist(), clean_up_tokenization_spaces=False) for part in parts)
    return [text.strip() for text in decoded]


def unwritable(model: LanguageModel) -> Tensor:
    """Ids that no one can type: special tokens, pieces and control characters, rows beyond the vocabulary."""
    size, tokenizer = model.network.get_input_embeddings().weight.shape[0], model.tokenizer
    known = len(tokenizer)
    texts = tokenizer.batch_decode([[token] for token in range(min(known, size))])
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    bad = [token for token, text in enumerate(texts) if token in special or not _is_typed(text)]
    return torch.tensor([*bad, *range(known, size)], dtype=torch.long, device=model.device)


def _is_typed(text: str) -> bool:
    return bool(text) and all(c != "\ufffd" and (c.isprintable() or c.isspace()) for c in text)


def one_text_per_slot(template: TemplateConfig) -> TemplateConfig:
    """The template with its slots numbered `{prompt.0}`, `{prompt.1}`, … in their order, one text for each.

    Two slots that had one text, `{prompt}` twice, have vectors of their own and so are read differently.
    """
    in_messages, in_text = count(), count()
    messages = [
        Message(m.role, SLOT.sub(lambda _: f"{{prompt.{next(in_messages)}}}", m.content)) for m in template.messages
    ]
    return TemplateConfig(messages, SLOT.sub(lambda _: f"{{prompt.{next(in_text)}}}", template.text))
