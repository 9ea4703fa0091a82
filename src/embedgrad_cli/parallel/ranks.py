"""Several processes, one run: what each of them needs to know of the others, and all that they send each other.

Work goes on in parts. Each process, a rank, does its own part and hands it to `gather`, `sum` or `together`; there they
meet. A rank that fails or is asked to stop in its part still comes to the meeting and says so: so all of them stop at
the same place, and none waits for one that has gone.

Nothing is pickled: numbers are sent as tensors, and all else as JSON. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from embedgrad_cli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What one rank adds to a sum: float32 numbers `[size]`, and a whole number below 2^24 that all get to know."""

    numbers: Tensor
    note: int = 0


class Ranks:
    """The processes of a run, from the point of view of one of them. Here it is the only one, and all that is its own.

    number, count: which one this is, from 0, and how many share rows; on_this_machine: how many of them it has.
    """

    number = 0
    count = 1
    on_this_machine = 1
    joins_first = False  # where the first one asks the model alone: with a part of it, no other way is there

    @property
    def is_first(self) -> bool:
        """The first rank alone writes files and speaks to the user."""
        return self.number == 0

    def share(self, lengths: Sequence[int]) -> list[int]:
        """The numbers of the rows that are this rank's, in their order: of every length as many as the others have.

        They are dealt from the longest on, there and back, so ranks differ by one row at most.
        """
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        return sorted(row for place, row in enumerate(order) if self._dealt_to(place) == self.number)

    def _dealt_to(self, place: int) -> int:
        lap, seat = divmod(place, self.count)
        return self.count - 1 - seat if lap % 2 else seat

    def together(self, work: Callable[[], T]) -> T:
        """What the work gives here, once it is done everywhere.

        Raises:
            StopAsked: a rank was asked to stop.
            EndedElsewhere: the work failed on another rank. Where it failed here, what it raised.
        """
        return work()

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        """What the work gives on every rank, by their numbers: anything that JSON can write. Raises: as `together`."""
        return [work()]

    def each(self, work: Callable[[], Any]) -> list[Any]:
        """As `gather`, of ranks that do the same work too."""
        return self.gather(work)

    def sum(self, work: Callable[[], Part], size: int) -> tuple[Tensor, list[int]]:
        """The sum of all parts, `[size]`, the same to the last bit on every rank, and their notes.

        Raises: as `together`.
        """
        part = work()
        return part.numbers, [part.note]

    def alike(self, error: Exception) -> Exception:
        """An error that all ranks come upon alike, as each of them raises it: the first one speaks."""
        return error

    def device(self, name: str) -> str:
        """The device of this rank where the setting `device` is `name`."""
        return name


ALONE = Ranks()


def check_same(ranks: Ranks, facts: Mapping[str, str]) -> None:
    """All ranks have to work on the same things, which on several machines may be in folders of their own.

    Args:
        facts: what each rank works on, by the name that a message gives it.

    Raises:
        UserError: a rank works on something else than the first one.
    """
    first, *others = ranks.each(lambda: dict(facts))
    for number, one in enumerate(others, 1):
        for name, value in first.items():
            if one[name] != value:
                raise ranks.alike(
                    UserError(
                        f"process {number} of this run has another {name} than process 0. All processes need the same "
                        "command, the same files, and one output_dir that all of them can read."
                    )
                )
