"""One forward pass of the network over some tokens of each row, after what has been computed of these rows.

It comes in six forms, by what is wanted of it:

    extend_cache              the keys and values alone
    logits_and_cache          logits at some positions, and the keys and values
    hidden_states_and_cache   the last hidden states at some positions, and the keys and values
    logits_at                 logits at some positions; nothing follows
    hidden_states_at          the last hidden states at some positions; nothing follows
    losses_at                 negative log-likelihoods of what follows some positions

Positions number the tokens of all rows one after the other. Where the rows have a shared prefix (trunk) in front of
them they are packed, else padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.kernels.activation_checkpointing import body_of, checkpointed_layers
from embedgrad_cli.core.kernels.float32_weights import float32_weights
from embedgrad_cli.core.kernels.frozen_head_loss import frozen_head_losses
from embedgrad_cli.core.kernels.kv_cache import KeyValues, PackedCache, PrefixCache
from embedgrad_cli.core.kernels.needed_positions import logits_only_at, mlp_only_at
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt

Sequences = Sequence[Sequence[int]]  # the tokens of each row


def extend_cache(
    model: LanguageModel,
    sequences: Sequences,
    key_values: KeyValues,
    prompt: SoftPrompt,
    dtype: torch.dtype | None = None,
) -> KeyValues:
    """The keys and values of each row, extended by those of its new tokens.

    Args: dtype: float32 computes in it whatever the model's own is; `key_values` are in it too.
    """
    # One position is as good as none, and all modules can take it.
    prepared = _prepare(model, sequences, key_values, prompt, positions=[0], dtype=dtype)
    precision = float32_weights(model.network) if dtype == torch.float32 else nullcontext()
    with precision, mlp_only_at(model.network, prepared.positions):
        body_of(model.network)(**prepared.inputs)
    return prepared.cache.extended()


def logits_and_cache(
    model: LanguageModel, sequences: Sequences, key_values: KeyValues, prompt: SoftPrompt, positions: Sequence[int]
) -> tuple[Tensor, KeyValues]:
    """Returns: logits `[len(positions), vocabulary]`, and the keys and values as `extend_cache` gives them."""
    prepared = _prepare(model, sequences, key_values, prompt, positions)
    with mlp_only_at(model.network, prepared.positions):
        logits = _logits(model, prepared)
    return logits, prepared.cache.extended()


def hidden_states_and_cache(
    model: LanguageModel, sequences: Sequences, key_values: KeyValues, prompt: SoftPrompt, positions: Sequence[int]
) -> tuple[Tensor, KeyValues]:
    """Returns: last hidden states `[len(positions), hidden_size]`, and the keys and values as `extend_cache`."""
    prepared = _prepare(model, sequences, key_values, prompt, positions)
    with mlp_only_at(model.network, prepared.positions):
        return _hidden_states(model, prepared), prepared.cache.extended()


def logits_at(
    model: LanguageModel,
    sequences: Sequences,
    key_values: KeyValues,
    prompt: SoftPrompt,
    positions: Sequence[int],
    checkpoint_activations: bool = False,
) -> Tensor:
    """Logits `[len(positions), vocabulary]` of tokens that nothing follows.

    Args:
        checkpoint_activations: run the layers again in the backward pass instead of keeping what they computed.
    """
    prepared = _prepare(model, sequences, key_values, prompt, positions, read_only=True)
    with _saving(model, prepared, checkpoint_activations):
        return _logits(model, prepared)


def hidden_states_at(
    model: LanguageModel,
    sequences: Sequences,
    key_values: KeyValues,
    prompt: SoftPrompt,
    positions: Sequence[int],
    checkpoint_activations: bool = False,
) -> Tensor:
    """The last hidden states `[len(positions), hidden_size]`, which the output layer takes; else as `logits_at`."""
    prepared = _prepare(model, sequences, key_values, prompt, positions, read_only=True)
    with _saving(model, prepared, checkpoint_activations):
        return _hidden_states(model, prepared)


def losses_at(
    model: LanguageModel,
    sequences: Sequences,
    key_values: KeyValues,
    prompt: SoftPrompt,
    positions: Sequence[int],
    targets: Sequence[int],
    checkpoint_activations: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Negative log-likelihood of a target after each position, `[len(positions)]` float32; else as `logits_at`."""
    work = (model, sequences, key_values, prompt, positions, checkpoint_activations)
    wanted = placed(targets, model.device)
    if model.has_plain_head:
        return frozen_head_losses(hidden_states_at(*work), model.network.get_output_embeddings(), wanted, temperature)
    return cross_entropy(logits_at(*work).float() / temperature, wanted, reduction="none")


@dataclass(frozen=True)
class _Prepared:
    """What the network is given, the cache among it, and the positions `[n]` in the flattened batch it sees."""

    inputs: dict[str, Any]
    cache: PackedCache | PrefixCache
    positions: Tensor


def _prepare(
    model: LanguageModel,
    sequences: Sequences,
    key_values: KeyValues,
    prompt: SoftPrompt,
    positions: Sequence[int],
    read_only: bool = False,
    dtype: torch.dtype | None = None,
) -> _Prepared:
    """Args: read_only: nothing follows, so the cache need not be extended, and layers may run again."""
    batch = PackedBatch.of(sequences, model.device)
    index = placed(positions, model.device)
    mask = torch.cat([key_values.mask, batch.mask], dim=1)
    position_ids = key_values.prefix_width + (mask.long().cumsum(1) - 1)[:, key_values.mask.shape[1] :].clamp(min=0)
    cache: PackedCache | PrefixCache
    if key_values.shared_prefix:
        cache, tokens, attention_mask = PackedCache(key_values, batch, model.dtype), batch.tokens[None], None
        position_ids = position_ids.flatten()[batch.token_index][None]
    else:
        cache, tokens, attention_mask = PrefixCache(key_values, batch, read_only), batch.padded_tokens, mask.long()
        index = batch.token_index[index]
    inputs = {
        "inputs_embeds": prompt.embed(tokens, model, dtype),
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "past_key_values": cache,
        "use_cache": True,
    }
    return _Prepared(inputs, cache, index)


def _hidden_states(model: LanguageModel, prepared: _Prepared) -> Tensor:
    hidden = body_of(model.network)(**prepared.inputs).last_hidden_state
    return hidden.flatten(0, 1)[prepared.positions]


def _logits(model: LanguageModel, prepared: _Prepared) -> Tensor:
    with logits_only_at(model.network, prepared.positions):
        return model.network(**prepared.inputs).logits.squeeze(0)


@contextmanager
def _saving(model: LanguageModel, prepared: _Prepared, checkpoint_activations: bool) -> Iterator[None]:
    """Save memory, if asked to and there is a backward pass; else the time of the last MLP at other positions."""
    checkpoints = checkpoint_activations and torch.is_grad_enabled()
    saving = checkpointed_layers(model.network) if checkpoints else mlp_only_at(model.network, prepared.positions)
    with saving:
        yield
