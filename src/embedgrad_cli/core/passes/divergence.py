"""How far a prompt moves the model's predictions from those under another one, over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.storage.interrupts import stop_if_asked

ROWS = 4  # at once: the logits of all their targets are held for both prompts


@dataclass(frozen=True)
class Divergence:
    """Of the predictions of one example's target tokens: `kl` in nats, and whether both prompts have the same likeliest
    token."""

    kl: tuple[float, ...]
    same_token: tuple[bool, ...]


@torch.no_grad()
def divergences(
    forward: Forward, examples: Sequence[Example], reference: SoftPrompt, prompt: SoftPrompt
) -> list[Divergence]:
    """Compare what the model predicts under two prompts for the same slots at every target token t of an example x:

        KL(reference ‖ prompt) = Σ_v p_ref(v | x, y_<t) log (p_ref(v | x, y_<t) / p(v | x, y_<t))

    summed over the vocabulary. The direction is that of Kullback and Leibler's (1951) loss of information when `prompt`
    stands for `reference`: what was likely and no longer is counts most.

    Raises:
        StopAsked: between two batches.
    """
    trunks = [(one, forward.compute_trunk(one)) for one in (reference, prompt)]

    def compare(batch: Sequence[Example]) -> list[Divergence]:
        lengths = [len(example.target) for example in batch]
        pairs = zip(*(forward.target_states(batch, *one).logits().split(lengths) for one in trunks), strict=True)
        return [_divergence(was, now) for was, now in pairs]

    order = sorted(range(len(examples)), key=lambda i: (examples[i].length, i))
    found = dict[int, Divergence]()
    for start in range(0, len(order), ROWS):
        stop_if_asked()
        rows = order[start : start + ROWS]
        found |= zip(rows, forward.rows_that_fit.run(compare, [examples[i] for i in rows]), strict=True)
    return [found[i] for i in range(len(examples))]


def _divergence(reference: Tensor, logits: Tensor) -> Divergence:
    """Args: both `[target length, vocabulary]`."""
    was, now = reference.float().log_softmax(-1), logits.float().log_softmax(-1)
    p = was.exp()
    kl = torch.where(p > 0, p * (was - now), 0).sum(-1)  # where p is 0, so is the term, whatever the other one is
    return Divergence(tuple(kl.tolist()), tuple((was.argmax(-1) == now.argmax(-1)).tolist()))
