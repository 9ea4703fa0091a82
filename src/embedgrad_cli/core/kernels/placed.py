"""Numbers of the host on the device, without a wait for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def placed(numbers: Sequence[Any] | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these numbers on a device.

    A usual copy to a GPU returns when all that it was told before is done, so each would leave it idle until the next
    operation arrives. From memory that the system may move, as all is here, CUDA takes a copy of its own at once, and
    the host's numbers may go. PyTorch promises that for CUDA alone.
    """
    tensor = torch.as_tensor(numbers, dtype=dtype)
    return tensor.to(device, non_blocking=device.type == "cuda")
