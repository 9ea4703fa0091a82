"""In which precision a model runs if nobody says: half precision where it is the faster one."""

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
    """Turn weights stored in half precision to float32, unless this processor multiplies them faster as they are; and
    those stored in float64, in which nothing here computes.

    Some have instructions for bfloat16 and take half the time; on others every product is converted to and fro. The
    numbers of the weights stay the same. What is timed are products of the network's own largest layer.
    """
    stored = network.get_input_embeddings().weight.dtype
    if stored == torch.float64:
        network.float()
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


def precision_on_gpu(stored: torch.dtype, has_bfloat16: bool) -> torch.dtype:
    """What weights stored in this precision run in on CUDA if nobody says.

    bfloat16 where the GPU multiplies it: half the memory of float32 and less of its time. float16 stays, as bfloat16
    would round it. On a GPU without bfloat16 nothing is rounded: float16 does not hold its range.
    """
    if stored == torch.float16:
        return stored
    return torch.bfloat16 if has_bfloat16 else torch.float32


def has_bfloat16() -> bool:
    """Whether CUDA's device multiplies bfloat16 itself; one that is not here is taken to."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def settle_precision_on_gpu(network: Any) -> None:
    """Give the weights, and nothing else, the precision that they run in on CUDA: positions are computed in float32."""
    stored = network.get_input_embeddings().weight.dtype
    dtype = precision_on_gpu(stored, has_bfloat16())
    if dtype == stored:
        return
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    log.info("the model is stored in %s and runs in %s on this GPU", stored, dtype)


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
