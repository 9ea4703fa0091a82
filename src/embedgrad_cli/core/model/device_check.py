"""Whether a device computes what the CPU does: tried out before `device=auto` relies on it.

A driver may offer a GPU that PyTorch was not built for, or whose kernels give other numbers. What a loaded model makes
of its own examples there is compared later: `core.passes.trunk_check`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, layer_norm, linear, scaled_dot_product_attention

from embedgrad_cli.errors import first_line

TOLERANCE = 1e-3  # relative; float32 rounds to about 1e-6
ROWS, WIDTH, HEADS, SIZE, VOCABULARY = 2, 33, 2, 32, 50


def why_unfit(device: torch.device) -> str | None:
    """Compare a small layer's logits and gradients in float32, with those of the CPU.

    Returns: why the device should not be used, in words; None: it may.
    """
    try:
        found = _numbers(device)
    except Exception as error:  # of a kind that each device chooses for itself
        return f"it cannot compute ({first_line(error)})"
    pairs = zip(found, _numbers(torch.device("cpu")), strict=True)
    errors = [float((one - other).norm() / other.norm()) for one, other in pairs]
    wrong = [error for error in errors if not error <= TOLERANCE]  # NaN too
    return f"what it computes differs from the CPU's by {wrong[0]:.1%}" if wrong else None


@torch.enable_grad()
def _numbers(device: torch.device) -> list[Tensor]:
    """Embeddings, a norm, causal attention, an output layer and a loss: logits, and the gradients of all weights."""
    generator, hidden = torch.Generator().manual_seed(0), HEADS * SIZE
    shapes = [(VOCABULARY, hidden), (3 * hidden, hidden), (VOCABULARY, hidden)]
    drawn = (torch.randn(shape, generator=generator) * hidden**-0.5 for shape in shapes)
    table, projection, head = weights = [weight.to(device).requires_grad_() for weight in drawn]
    ids = torch.randint(VOCABULARY, (ROWS, WIDTH), generator=generator).to(device)
    states = layer_norm(embedding(ids, table), (hidden,))
    query, key, value = linear(states, projection).unflatten(2, (3, HEADS, SIZE)).permute(2, 0, 3, 1, 4)
    attended = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
    logits = linear(states + attended, head)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, weights)
    return [tensor.detach().cpu() for tensor in (logits, *gradients)]
