"""How the processes of a run find each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from embedgrad_cli.errors import UserError
from embedgrad_cli.parallel import environment
from embedgrad_cli.parallel.divided import Divided
from embedgrad_cli.parallel.process_group import Group
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.interrupts import stops_wait

# Ranks wait for the slowest one's part: a download, or a batch of long answers. A rank that has died is known at once.
PATIENCE = timedelta(hours=6)


@contextmanager
def joined(processes: int | None, device: str, tensor_parallel: int | None = None) -> Iterator[Ranks]:
    """The ranks of this run: those that torchrun has started, or this process alone.

    Args:
        processes: how many the settings name; None: as many as there are.
        device: as the settings name it.
        tensor_parallel: how many divide the model; None: it is whole in each of them.

    Raises:
        UserError: they are not as many.
    """
    there, named = environment.count() if environment.in_group() else 1, tensor_parallel or processes
    if named not in (None, there):
        key = "tensor_parallel" if tensor_parallel else "processes"
        raise UserError(
            f"launch.{key}={named}, but this run has {there}. The command `embedgrad` starts as many by itself; where "
            f"torchrun does, its --nproc-per-node says how many. In Python, start the command."
        )
    if there == 1:
        yield ALONE
        return
    on_gpus = device.partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    is_ours = not dist.is_initialized()  # else the script that runs this has, or the context around this one
    if is_ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=PATIENCE)
    done = False
    try:
        if tensor_parallel is None:
            yield Group(on_gpus)
        else:
            with stops_wait():
                yield Divided(on_gpus)
        done = True
    finally:
        # Gloo's threads are joined before the interpreter ends, or it aborts now and then where another rank has gone
        # first. After an error NCCL would wait for ranks that do not come.
        if is_ours and (done or not on_gpus):
            dist.destroy_process_group()
