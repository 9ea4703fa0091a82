"""In which precision a model runs on a CPU if nobody says: half precision where it is the faster one there."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch.nn.functional import linear

from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers
from embedgrad_cli.core.kernels.float32_weights import HALF

log = logging.getLogger(__name__)

ROWS, TRIALS = 256, 5  # tokens of a pass, as training has them; timed products of which the shortest counts
MARGIN = 1.1  # half precision rounds, so it has to be worth it


def settle_precision(network: Any) -> None:
    """Turn weights stored in half precision to float32, unless this processor multiplies them faster as they are.

    Some have instructions for bfloat16 and take half the time; on others every product is converted to and fro. The
    numbers of the weights stay the same. What is timed are products of the network's own largest layer.
    """
    stored = network.get_input_embeddings().weight.dtype
    if stored not in HALF:
        return
    weight = _largest_weight(network)
    if weight is None:
        return
    half, single = (_seconds(weight.to(dtype)) for dtype in (stored, torch.float32))
    says = "%s is %.1f times as fast as float32 on this processor: the model runs in %s"
    if half * MARGIN > single:
        network.float()
        log.info(says, stored, single / half, torch.float32)
    else:
        log.info(says, stored, single / half, stored)


def _largest_weight(network: Any) -> torch.Tensor | None:
    layers = decoder_layers(network)
    matrices = [parameter for parameter in layers[0].parameters() if parameter.dim() == 2] if layers else []
    return max(matrices, key=torch.numel, default=None)


@torch.no_grad()
def _seconds(weight: torch.Tensor) -> float:
    """Of processor time, which a busy machine does not change much: a product and the one of the way back."""
    rows, shortest = torch.ones(ROWS, weight.shape[1], dtype=weight.dtype), float("inf")
    for _ in range(TRIALS + 1):  # the first prepares the kernel
        started = time.process_time()
        linear(rows, weight) @ weight
        shortest = min(shortest, time.process_time() - started)
    return shortest
