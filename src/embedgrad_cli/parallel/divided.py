"""Processes that divide every layer of the model between them (tensor parallelism): together they are one rank.

No pass is one process's alone, so all do the same work on the same rows, and each has the whole gradient. What they
must not do is part ways: whatever may differ between them (a grade within its time limit, a stop, a file) is what the
first one says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from embedgrad_cli.errors import EndedElsewhere
from embedgrad_cli.parallel.process_group import Group
from embedgrad_cli.parallel.ranks import Part
from embedgrad_cli.storage.interrupts import StopAsked, is_stop_asked

T = TypeVar("T")

ALIKE = timedelta(seconds=10)  # within which processes fail that fail alike


class Divided(Group):
    """Processes that each have a part of every layer.

    Within their work all of them add up numbers, so one that fails there cannot come to a meeting. It says so in the
    store by which they have found each other, and waits a little for the others to fail alike, of which then the first
    one speaks; else it speaks and ends, which those notice that wait for its numbers. A stop waits for the next
    meeting: see `storage.interrupts.stops_wait`.
    """

    joins_first = True

    def __init__(self, on_gpus: bool) -> None:
        super().__init__(on_gpus)
        self.count = 1  # that share rows

    def share(self, lengths: Sequence[int]) -> list[int]:
        """All rows."""
        return list(range(len(lengths)))

    def together(self, work: Callable[[], T]) -> T:
        try:
            done = work()
        except (Exception, StopAsked) as error:
            self._end(error)
        if any(self._told(int(is_stop_asked()))):
            raise StopAsked
        return done

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        """What the work gives on the first rank, alone in a list."""
        return self.each(work)[:1]

    def each(self, work: Callable[[], Any]) -> list[Any]:
        done = self.together(work)
        return super().gather(lambda: done)

    def sum(self, work: Callable[[], Part], size: int) -> tuple[Tensor, list[int]]:
        """What the first rank has, which is the whole: the others' differ by rounding, if at all."""
        part = self.together(work)
        numbers = part.numbers.clone()
        with self.connected():
            dist.broadcast(numbers, 0)
        return numbers, self._told(part.note)[:1]

    def lost(self) -> Exception:
        store = dist.distributed_c10d._get_default_store()
        try:
            if any(store.check([_failed(number)]) for number in range(self.size)):
                return EndedElsewhere("a process of the run has failed")
        except RuntimeError:  # the store has gone with the first one
            pass
        return super().lost()

    def _told(self, number: int) -> list[int]:
        return [int(one) for one in self.all_gathered(torch.tensor([number]))]

    def _end(self, failure: BaseException) -> NoReturn:
        if isinstance(failure, dist.DistError) or (isinstance(failure, RuntimeError) and "gloo" in str(failure)):
            raise self.lost() from failure
        is_alike = True
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(_failed(self.number), "")
            store.wait([_failed(number) for number in range(self.size)], ALIKE)
        except RuntimeError:
            is_alike = False
        if self.is_first or not is_alike:
            raise failure
        raise EndedElsewhere(str(failure)) from failure


def _failed(number: int) -> str:
    return f"embedgrad/failed/{number}"
