"""A random model whose answers have prescribed lengths, for whoever decodes it and however rows are batched.

A few tokens count down: after token `FIRST + n` the model says `FIRST + n - 1`, and `FIRST` ends the answer. So a query
whose last token is `FIRST + n` is answered with n tokens, the end included. Nothing watches the decoding: the countdown
is in the weights. The embeddings of these tokens are so long that the layers, which do all their usual work, hardly
turn them, and the output layer answers each with its predecessor.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.text.marked_tokens import Example

from .models import language_model

END = FIRST = 10
LENGTH = 100.0  # of a countdown token's embedding over that of others


@torch.no_grad()
def teach_countdown(network: Any, longest: int) -> LanguageModel:
    """Let a network with random weights count down from `longest`; its output layer becomes one of its own."""
    table = network.get_input_embeddings().weight
    counting = slice(FIRST, FIRST + longest + 1)
    table[counting] *= LENGTH
    head = torch.nn.Linear(table.shape[1], table.shape[0], bias=False, device=table.device, dtype=table.dtype)
    head.weight.copy_(table)
    head.weight[counting] = 0.0
    head.weight[counting.start : counting.stop - 1] = table[counting.start + 1 : counting.stop]
    network.set_output_embeddings(head.requires_grad_(False))
    network.config.tie_word_embeddings = False
    network.generation_config.eos_token_id = END
    return language_model(network, SimpleNamespace(eos_token_id=END))


def answered_with(example: Example, length: int) -> Example:
    """The example with an answer of `length` tokens."""
    return replace(example, tokens=(*example.tokens[:-1], FIRST + length))


def without_countdown(example: Example, longest: int) -> Example:
    """The example with none of the countdown's tokens inside."""
    return replace(
        example, tokens=tuple(t + longest + 1 if FIRST <= t <= FIRST + longest else t for t in example.tokens)
    )
