"""Ranks as PyTorch's process group: gloo between CPUs and for all that is not a gradient, NCCL between GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from embedgrad_cli.errors import EmbedgradError, EndedElsewhere, UserError
from embedgrad_cli.parallel.ranks import Part, Ranks
from embedgrad_cli.storage.interrupts import StopAsked, Stopped

T = TypeVar("T")

STOP = Stopped.exit_code
_LOST = (
    "another process of this run has ended without a word; it may have been killed, for its memory as a rule. The run "
    "is kept as of its last checkpoint: the same command goes on from there, with as many processes as you like."
)


class Group(Ranks):
    """The ranks that torchrun has started, once they have found each other."""

    def __init__(self, on_gpus: bool) -> None:
        self.number, self.size, self.on_gpus = dist.get_rank(), dist.get_world_size(), on_gpus
        self.count = self.size
        self.on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        self.place = int(os.environ.get("LOCAL_RANK", self.number))  # among those of this machine
        self.is_over = False  # a meeting has ended all of them, so nobody comes to another one

    def together(self, work: Callable[[], T]) -> T:
        done = list[T]()
        self.gather(lambda: done.append(work()))
        return done[0]

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        content, code, failure = b"", 0, None
        try:
            content = json.dumps(work()).encode()
        except (Exception, StopAsked) as error:
            if self.is_over:
                raise
            code, failure = _code(error), error
        heads = self.all_gathered(torch.tensor([code, len(content)]))
        self._end_if_any([int(head[0]) for head in heads], failure)
        lengths = [int(head[1]) for head in heads]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        contents = self.all_gathered(padded)
        return [json.loads(bytes(one[:n].numpy())) for one, n in zip(contents, lengths, strict=True)]

    def sum(self, work: Callable[[], Part], size: int) -> tuple[Tensor, list[int]]:
        """One `all_reduce` of `size` + 2 `count` float32 numbers, the exit codes and notes of all ranks among them."""
        said = torch.zeros(2, self.count)
        numbers, failure = torch.zeros(size), None
        try:
            part = work()
            numbers, said[1, self.number] = part.numbers, part.note
        except (Exception, StopAsked) as error:
            if self.is_over:
                raise
            said[0, self.number], failure = _code(error), error
        vector = torch.cat([numbers, said.flatten().to(numbers.device)])
        vector = vector.to(f"cuda:{self.place}" if self.on_gpus else "cpu")
        with self.connected():
            dist.all_reduce(vector)
            codes, notes = vector[size:].view(2, self.count).int().tolist()
        self._end_if_any(codes, failure)
        return vector[:size], notes

    def alike(self, error: Exception) -> Exception:
        return error if self.is_first else EndedElsewhere(str(error))

    def device(self, name: str) -> str:
        """Every rank has a GPU of its own, or all of them the CPU.

        Raises:
            UserError: there are not as many GPUs, or the name is that of one device.
        """
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if name not in ("auto", "cuda"):
            raise UserError(
                f"device={name} is one device, and each of the {self.size} processes of this run needs its own. Give "
                "device=cuda, where each takes the one of its number, or device=cpu."
            )
        if torch.cuda.device_count() < self.on_this_machine:
            raise UserError(
                f"device={name}: there are {torch.cuda.device_count()} GPUs here for {self.on_this_machine} processes. "
                "Start as many processes as there are GPUs: launch.processes=N, or torchrun --nproc-per-node N."
            )
        torch.cuda.set_device(self.place)
        return f"cuda:{self.place}"

    def all_gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape, on the CPU."""
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with self.connected():
            dist.all_gather(gathered, tensor)
        return gathered

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Within it ranks send to each other.

        Raises: what `lost` gives, where a rank has gone.
        """
        try:
            yield
        except RuntimeError as error:  # of which PyTorch's are: the connection to a rank was closed
            raise self.lost() from error

    def lost(self) -> Exception:
        """The error of a rank that another one has left without a word."""
        return self.alike(EmbedgradError(_LOST))

    def _end_if_any(self, codes: list[int], failure: BaseException | None) -> None:
        """Where a rank has failed, or was asked to stop, all of them end here."""
        self.is_over = any(codes)
        failed = [number for number, code in enumerate(codes) if code not in (0, STOP)]
        if failed and failed[0] == self.number and failure is not None:
            raise failure
        if failed:
            raise EndedElsewhere(f"process {failed[0]} of the run has failed") from failure
        if STOP in codes:
            raise StopAsked


def _code(error: BaseException) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, StopAsked):
        return STOP
    return (error.exit_code if isinstance(error, EmbedgradError) else 0) or 1
