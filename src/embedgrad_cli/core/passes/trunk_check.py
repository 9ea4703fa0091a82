"""Whether a model may be run by a shared prefix (trunk) at all: tried out before it is relied on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.plain import plain_losses
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Example

log = logging.getLogger(__name__)


def can_share_trunk(model: LanguageModel, examples: Sequence[Example], prompt: SoftPrompt) -> bool:
    """Try both ways on two examples: whether loss and gradient by the trunk equal the plain forward's.

    Recurrent and other exotic caches fail this, by an exception or by a difference; then one line is logged and the
    run goes on with the plain forward.
    """
    batch = sorted(examples, key=lambda example: example.length)[:2]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    prompt = SoftPrompt(prompt.slots, prompt.seed)
    try:
        Forward(model, batch).accumulate_gradient(batch, prompt)
        by_trunk = prompt.vectors.grad
        (plain,) = torch.autograd.grad(plain_losses(model, batch, prompt).mean(), prompt.vectors)
        error = 1.0 if by_trunk is None else float((by_trunk - plain).norm() / plain.norm().clamp(min=1e-20))
    except Exception as exception:  # any failure of a cache we do not know means: do not use it
        log.warning("plain forward: the model's cache cannot carry gradient (%s)", exception)
        return False
    if not error <= tolerance:
        log.warning("plain forward: the trunk's gradient differs from the plain one by %.1e", error)
        return False
    return True
