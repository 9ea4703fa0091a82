"""The device that a model is loaded on."""

from __future__ import annotations

import logging

import torch

from embedgrad_cli.core.model.device_check import why_unfit
from embedgrad_cli.errors import UserError

log = logging.getLogger(__name__)


def pick_device(name: str, is_trusted: bool = True) -> torch.device:
    """`auto` is the first CUDA device, else Apple's, else the CPU; a GPU that computes wrong is left out.

    Args: is_trusted: the user named it; False tries it out, as `auto` does (`core.model.device_check`).

    Raises:
        UserError: the named device does not exist here, or it was tried out and computes wrong.
    """
    if name == "auto":
        name = _first_that_computes()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if not is_trusted and (reason := why_unfit(device)):
            raise RuntimeError(reason)
    except Exception as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"device={name} cannot be used here: {why}. Use device=cpu, or device=auto.") from error
    return device


def _first_that_computes() -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in [name for name, is_there in there.items() if is_there]:
        reason = why_unfit(torch.device(name))
        if reason is None:
            return name
        log.warning("device=auto leaves out %s: %s", name, reason)
    return "cpu"
