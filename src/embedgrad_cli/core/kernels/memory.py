"""How much memory there is, how much was used, and whether an error means that it ran out."""

from __future__ import annotations

import os
import sys

import torch

from embedgrad_cli.errors import EmbedgradError


class OutOfMemory(EmbedgradError):
    """Not even one example fits."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free now on the GPU, or in main memory; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def peak_memory(device: torch.device) -> int | None:
    """The most bytes this process has held: tensors on the GPU, or all of it in main memory; None: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU PyTorch raises a plain RuntimeError, known by its words alone."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
