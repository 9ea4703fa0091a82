"""Scores of choices with their gradient: what `scoring` gives, for rows whose choices may differ.

The conversation is computed once per row. Its last position predicts every choice's first token; only what choices hold
beyond that is computed per choice, on the row's keys and values. So choices of one token each cost nothing but the
products with their own rows of the output layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from embedgrad_cli.core.kernels.frozen_head_loss import frozen_head_losses
from embedgrad_cli.core.kernels.kv_cache import KeyValues
from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives import Labels
from embedgrad_cli.core.passes.network_pass import (
    hidden_states_and_cache,
    hidden_states_at,
    logits_and_cache,
    logits_at,
    losses_at,
)
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


def choice_scores(
    model: LanguageModel,
    branches: Sequence[Sequence[int]],
    key_values: KeyValues,
    prompt: SoftPrompt,
    labels: Sequence[Labels],
    absolute: bool,
    temperature: float = 1.0,
) -> Tensor:
    """As `objectives.Passes.choice_scores`.

    Args:
        branches: what is left to compute of each row before its answer.
        key_values: what has been computed.
    """
    last = [end - 1 for end in accumulate(map(len, branches))]
    work = (model, branches, key_values, prompt, last)
    longest = max(len(ids) for ids in chain.from_iterable(labels))
    if longest == 1:
        states = hidden_states_at(*work) if model.has_plain_head else logits_at(*work)
    else:
        states, key_values = hidden_states_and_cache(*work) if model.has_plain_head else logits_and_cache(*work)
    scores = pad_scores(_first_tokens(model, states, labels, absolute, temperature), labels)
    if longest > 1:
        scores = scores + torch.stack(
            [
                _rest(
                    model, [of_row[k] if k < len(of_row) else () for of_row in labels], key_values, prompt, temperature
                )
                for k in range(scores.shape[1])
            ],
            dim=1,
        )
    return scores


def pad_scores(flat: Tensor, labels: Sequence[Labels]) -> Tensor:
    """Scores row by row, `[number of choices in all]` → `[rows, most choices]`, with -inf where a row has fewer."""
    return pad_sequence(list(flat.split([len(of_row) for of_row in labels])), True, -torch.inf)


def _first_tokens(
    model: LanguageModel, states: Tensor, labels: Sequence[Labels], absolute: bool, temperature: float
) -> Tensor:
    """Log-likelihood of each choice's first token, row by row; unless `absolute`, of each row up to one number.

    Args: states: at each row's last position, the hidden state, or the logits of a model whose head is not plain.
    """
    firsts = [[ids[0] for ids in of_row] for of_row in labels]
    row_of = placed([row for row, tokens in enumerate(firsts) for _ in tokens], states.device)
    tokens = placed(list(chain.from_iterable(firsts)), states.device)
    if not model.has_plain_head:
        logits = states.float() / temperature
        chosen = logits.index_select(0, row_of).gather(1, tokens[:, None]).squeeze(1)
        return chosen - logits.logsumexp(1).index_select(0, row_of) if absolute else chosen
    layer = model.network.get_output_embeddings()
    chosen = (states.index_select(0, row_of).float() * layer.weight[tokens].float()).sum(1)
    chosen = (chosen if layer.bias is None else chosen + layer.bias[tokens].float()) / temperature
    if not absolute:
        return chosen
    starts = placed([0, *accumulate(map(len, firsts))][:-1], states.device)
    norms = frozen_head_losses(states, layer, tokens[starts], temperature) + chosen.index_select(0, starts)
    return chosen - norms.index_select(0, row_of)


def _rest(
    model: LanguageModel,
    choice: Sequence[tuple[int, ...]],
    key_values: KeyValues,
    prompt: SoftPrompt,
    temperature: float,
) -> Tensor:
    """Log-likelihood of the tokens after the first of one choice per row, `[rows]`; 0 where there are none."""
    lengths = [max(len(ids) - 1, 0) for ids in choice]
    if not any(lengths):
        return torch.zeros(len(choice), device=model.device)
    targets = [token for ids in choice for token in ids[1:]]
    work = (model, [ids[:-1] for ids in choice], key_values, prompt, range(len(targets)), targets)
    losses = losses_at(*work, temperature=temperature)
    return -torch.stack([of_row.sum() for of_row in losses.split(lengths)])
