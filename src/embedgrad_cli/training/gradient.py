"""The gradient of one optimiser step, of which every rank computes what its rows give."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.parallel.ranks import Part, Ranks

log = logging.getLogger(__name__)


def set_gradient(
    forward: Forward, batch: Sequence[Example], prompt: SoftPrompt, micro_batch_size: int | None, ranks: Ranks
) -> Tensor:
    """Give the prompt the gradient of the batch's loss, the same to the last bit on every rank.

    The model is frozen and whole on every rank, so no wrapper around it is needed: a rank takes its rows of the batch,
    divides by the number of terms that all rows have, and the gradients are added. They travel once per step, as
    num_tokens x hidden_size + 1 + 2 x ranks float32 numbers, whatever the size of the model. Where memory runs out on
    one rank, all of them take the smallest micro-batches from then on.

    Args, Raises: as `Forward.accumulate_gradient`; and as `Ranks.together`.

    Returns: the loss, a scalar without graph.
    """
    lengths = [len(row.tokens) - len(forward.trunk) + forward.objective.num_tokens(row) for row in batch]
    own, num_terms = [batch[i] for i in ranks.share(lengths)], forward.objective.num_terms(batch)

    def part() -> Part:
        loss = prompt.vectors.new_zeros(())
        if own:
            loss = forward.accumulate_gradient(own, prompt, micro_batch_size, num_terms)
        gradient = prompt.vectors.grad
        flat = torch.zeros_like(prompt.vectors.flatten()) if gradient is None else gradient.flatten()
        return Part(torch.cat([flat, loss.view(1)]).detach(), forward.max_micro_batch or 0)

    prompt.vectors.grad = None
    total, fitting = ranks.sum(part, prompt.vectors.numel() + 1)
    prompt.vectors.grad = total[:-1].view_as(prompt.vectors).clone()
    least = min((most for most in fitting if most), default=None)
    if least != forward.max_micro_batch:
        log.warning("memory ran out in another process: micro-batches of %d examples from now on", least)
        forward.max_micro_batch = least
    return total[-1]
