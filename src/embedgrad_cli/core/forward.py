"""The forward pass that computes each token once: training, scoring and generation all go through it.

Two questions decide how a token is computed:

|                                | before the first slot: no gradient | from the first slot on: carries gradient       |
| ------------------------------ | ---------------------------------- | ---------------------------------------------- |
| shared by all examples: trunk  | once per run                       | once per optimiser step, at batch size 1       |
| per example: branch            | once per step, no graph kept       | once per step, with graph                      |

The trunk's keys and values are cut from its graph and handed to every micro-batch of branches as leaves. Their
gradients add up over all micro-batches and go through the trunk once, at the end. So a batch may be split by length,
which saves padding, at no cost. Only positions that predict a target token are projected to the vocabulary. The same
schedule is known from reinforcement learning with shared prompts (arXiv 2606.01143); it needs no kernel.

A model whose cache cannot carry gradient uses the plain forward (`shares_trunk=False`), and so do the tests, as the
reference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from embedgrad_cli.core.batching import split_by_length
from embedgrad_cli.core.encoding import Example, trunk_length
from embedgrad_cli.core.losses import frozen_head_losses
from embedgrad_cli.core.model import LanguageModel
from embedgrad_cli.core.soft_prompt import SoftPrompt

log = logging.getLogger(__name__)

Layers = list[tuple[Tensor, Tensor]]  # keys and values per layer, each [batch, heads, width, head_size]


@dataclass
class Past:
    """What has been computed of a batch: keys and values, and a mask `[batch, width]`, True where a token is real."""

    layers: Layers
    mask: Tensor

    def expand(self, batch_size: int) -> Past:
        """The same past for every row of a batch, without a copy."""
        layers = [(k.expand(batch_size, -1, -1, -1), v.expand(batch_size, -1, -1, -1)) for k, v in self.layers]
        return Past(layers, self.mask.expand(batch_size, -1))

    def select(self, rows: Tensor) -> Past:
        return Past([(k[rows], v[rows]) for k, v in self.layers], self.mask[rows])


class Forward:
    """Runs a frozen model over examples with a soft prompt in their slots.

    Args:
        model: the frozen language model.
        examples: all examples that will be run; the tokens they share are the trunk.
        shares_trunk: False computes every example in full.
    """

    def __init__(self, model: LanguageModel, examples: Sequence[Example], shares_trunk: bool = True) -> None:
        self.model, self.shares_trunk = model, shares_trunk
        self.trunk = examples[0].tokens[: trunk_length(examples)] if shares_trunk and examples else ()
        first_slot = next((i for i, token in enumerate(self.trunk) if token < 0), len(self.trunk))
        self._frozen_tokens, self._live_tokens = self.trunk[:first_slot], self.trunk[first_slot:]
        self._frozen: Past | None = None

    def accumulate_gradient(
        self, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None = None
    ) -> Tensor:
        """Add the gradient of the batch's loss, the mean over its target tokens, to the prompt's.

        Returns: the loss, a scalar without graph.
        """
        num_targets = sum(len(example.target) for example in batch)
        trunk = self.compute_trunk(prompt)
        carries_gradient = bool(self._live_tokens) and self.shares_trunk
        leaves = [(_leaf(k, carries_gradient), _leaf(v, carries_gradient)) for k, v in trunk.layers]
        lengths = [example.length - len(self.trunk) for example in batch]
        total = torch.zeros((), device=self.model.device)
        for rows in split_by_length(lengths, micro_batch_size):
            losses = self._losses([batch[i] for i in rows], prompt, Past(leaves, trunk.mask))
            loss = losses.sum() / num_targets
            loss.backward()
            total += loss.detach()
        if carries_gradient:
            _backward_through_trunk(trunk.layers, leaves)
        return total

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example], prompt: SoftPrompt, batch_size: int) -> float:
        """Mean negative log-likelihood over all target tokens of the examples."""
        trunk, total, count = self.compute_trunk(prompt), 0.0, 0
        ordered = sorted(examples, key=lambda example: example.length)
        for start in range(0, len(ordered), batch_size):
            losses = self._losses(ordered[start : start + batch_size], prompt, trunk)
            total, count = total + losses.sum().item(), count + len(losses)
        return total / count

    def _losses(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> Tensor:
        return self.target_losses(batch, prompt, trunk) if self.shares_trunk else self.plain_losses(batch, prompt)

    def target_losses(self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past) -> Tensor:
        """Negative log-likelihood of every target token, example by example: `[total target length]`, float32."""
        past, branches = self.compute_before_slot(batch, prompt, trunk)
        tokens, mask = self.pad(
            [[*branch, *example.target[:-1]] for branch, example in zip(branches, batch, strict=True)]
        )
        width = tokens.shape[1]
        predicting = [
            row * width + len(branch) - 1 + i
            for row, (branch, example) in enumerate(zip(branches, batch, strict=True))
            for i in range(len(example.target))
        ]
        targets = torch.tensor([token for example in batch for token in example.target], device=self.model.device)
        if self.model.has_plain_head:
            hidden, _ = self.run(tokens, mask, past, prompt)
            index = torch.tensor(predicting, device=self.model.device)
            return frozen_head_losses(hidden.flatten(0, 1)[index], self.model.network.get_output_embeddings(), targets)
        logits, _ = self.run(tokens, mask, past, prompt, predicting)
        return cross_entropy(logits.float(), targets, reduction="none")

    def plain_losses(self, batch: Sequence[Example], prompt: SoftPrompt) -> Tensor:
        """`target_losses` from whole sequences and all logits, as any other tool computes them: the reference."""
        tokens, mask = self.pad([[*example.tokens, *example.target] for example in batch])
        embeds = self.embed(tokens, prompt)
        logits = self.model.network(inputs_embeds=embeds, attention_mask=mask.long(), use_cache=False).logits
        losses = []
        for row, example in enumerate(batch):
            first = len(example.tokens) - 1
            targets = torch.tensor(example.target, device=logits.device)
            predictions = logits[row, first : first + len(targets)].float()
            losses.append(cross_entropy(predictions, targets, reduction="none"))
        return torch.cat(losses)

    def compute_trunk(self, prompt: SoftPrompt) -> Past:
        """The trunk at batch size 1; from its first slot on with a graph, if gradients are enabled."""
        if self._frozen is None:
            nothing = Past([], torch.ones(1, 0, dtype=torch.bool, device=self.model.device))
            with torch.no_grad():
                self._frozen = self._extend(nothing, self._frozen_tokens, prompt)
        return self._extend(self._frozen, self._live_tokens, prompt)

    def compute_before_slot(
        self, batch: Sequence[Example], prompt: SoftPrompt, trunk: Past
    ) -> tuple[Past, list[tuple[int, ...]]]:
        """Expand the trunk over a batch and compute, without a graph, what the branches hold before their first slot.

        Returns: what has been computed, and what is left of each branch.
        """
        past, branches = trunk.expand(len(batch)), [example.tokens[len(self.trunk) :] for example in batch]
        cuts = [next((i for i, token in enumerate(branch) if token < 0), 0) for branch in branches]
        if self._live_tokens or not self.shares_trunk or not any(cuts) or not self.allows_gaps(cuts):
            return past, branches
        tokens, mask = self.pad([branch[:cut] for branch, cut in zip(branches, cuts, strict=True)])
        with torch.no_grad():
            _, past = self.run(tokens, mask, past, prompt)
        return past, [branch[cut:] for branch, cut in zip(branches, cuts, strict=True)]

    def allows_gaps(self, lengths: Sequence[int]) -> bool:
        """Whether rows of these lengths may be padded *inside* a sequence.

        A sliding window counts places, not positions, so padding between two tokens would shorten its reach.
        """
        return self.model.sliding_window is None or len(set(lengths)) == 1

    def run(
        self,
        tokens: Tensor,
        mask: Tensor,
        past: Past,
        prompt: SoftPrompt,
        predicting: list[int] | None = None,
    ) -> tuple[Tensor, Past]:
        """One forward pass.

        Args:
            tokens, mask: `[batch, width]`; padding may stand on either side.
            past: what has been computed of these rows.
            predicting: flat indices into `tokens` of the places to project to the vocabulary; None projects nothing.

        Returns: logits `[len(predicting), vocabulary]`, or the last hidden states, and the extended past.
        """
        full_mask = torch.cat([past.mask, mask], dim=1)
        positions = (full_mask.long().cumsum(1) - 1).clamp(min=0)[:, past.mask.shape[1] :]
        arguments = {
            "inputs_embeds": self.embed(tokens, prompt),
            "attention_mask": full_mask.long(),
            "position_ids": positions,
            "use_cache": self.shares_trunk,
            "past_key_values": _to_cache(past.layers) if self.shares_trunk else None,
        }
        if predicting is None:
            output = self.model.network.base_model(**arguments)
            result = output.last_hidden_state
        else:
            with self._project_only(predicting):
                output = self.model.network(**arguments)
            result = output.logits.squeeze(0)
        return result, Past(_from_cache(output.past_key_values) if self.shares_trunk else [], full_mask)

    def embed(self, tokens: Tensor, prompt: SoftPrompt) -> Tensor:
        """Embeddings `[batch, width, hidden_size]` in the model's dtype: the table's, and in slots the prompt's."""
        embeds = self.model.embed(tokens.clamp(min=0))
        if not prompt.slots.num_tokens:
            return embeds
        vectors = prompt.vectors.to(embeds.dtype)[(-1 - tokens).clamp(min=0)]
        return torch.where((tokens < 0).unsqueeze(-1), vectors, embeds)

    def pad(self, sequences: Sequence[Sequence[int]], left: bool = False) -> tuple[Tensor, Tensor]:
        """Pad to one width. Returns: tokens and mask, both `[batch, width]`."""
        width = max(len(sequence) for sequence in sequences)
        tokens, mask = [], []
        for sequence in sequences:
            padding = width - len(sequence)
            front, back = (padding, 0) if left else (0, padding)
            tokens.append([0] * front + [*sequence] + [0] * back)
            mask.append([False] * front + [True] * len(sequence) + [False] * back)
        device = self.model.device
        return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)

    def _extend(self, past: Past, sequence: Sequence[int], prompt: SoftPrompt) -> Past:
        return self.run(*self.pad([sequence]), past, prompt)[1] if sequence else past

    @contextmanager
    def _project_only(self, places: list[int]) -> Iterator[None]:
        """Let only some places reach the output layer.

        Done in front of the layer itself, so that whatever a model does to its logits afterwards (Gemma caps them,
        Cohere scales them) still happens.
        """
        index = torch.tensor(places, device=self.model.device)
        layer = self.model.network.get_output_embeddings()
        handle = layer.register_forward_pre_hook(lambda _, args: (args[0].flatten(0, 1)[index].unsqueeze(0),))
        try:
            yield
        finally:
            handle.remove()


def can_share_trunk(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> bool:
    """Try both ways on two examples: whether loss and gradient by the trunk equal the plain forward's.

    Recurrent and other exotic caches fail this, by an exception or by a difference; then one line is logged and the
    run goes on with the plain forward.
    """
    batch = sorted(examples, key=lambda e: e.length)[:2]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    prompt = SoftPrompt(prompt.slots, prompt.seed)
    try:
        Forward(model, batch).accumulate_gradient(batch, prompt)
        by_trunk = prompt.vectors.grad
        loss = Forward(model, batch, shares_trunk=False).plain_losses(batch, prompt).mean()
        (plain,) = torch.autograd.grad(loss, prompt.vectors)
        error = 1.0 if by_trunk is None else float((by_trunk - plain).norm() / plain.norm().clamp(min=1e-20))
    except Exception as exception:  # any failure of a cache we do not know means: do not use it
        log.warning("plain forward: the model's cache cannot carry gradient (%s)", exception)
        return False
    if not error <= tolerance:
        log.warning("plain forward: the trunk's gradient differs from the plain one by %.1e", error)
        return False
    return True


def _leaf(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.detach().requires_grad_(requires_grad)


def _backward_through_trunk(layers: Layers, leaves: Layers) -> None:
    """Send the gradients that the branches left in the leaves through the trunk's own graph."""
    outputs = [t for pair in layers for t in pair]
    gradients = [leaf.grad for pair in leaves for leaf in pair]
    reached = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
    torch.autograd.backward([o for o, _ in reached], [g for _, g in reached])


def _to_cache(layers: Layers) -> Any:
    """A `transformers` cache that holds these tensors themselves, not copies of them."""
    cache: Any = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        cache.update(keys[:1, :, :0], values[:1, :, :0], index)  # creates the layer
        cache.layers[index].keys, cache.layers[index].values = keys, values
    return cache


def _from_cache(cache: Any) -> Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]
