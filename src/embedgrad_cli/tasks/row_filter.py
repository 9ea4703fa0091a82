"""Which rows trained or selected a prompt, as digests that are small enough to travel in its artifact.

A row is named by its query, white space aside. Where the data asks one query with several sets of choices, such a row
is named by both, the choices in any order. A name becomes a number: its salted sha256 modulo `num_digests * 2**bits`.
The sorted numbers are stored as Elias (1974) and Fano (1971) store them: the low `bits` of each as they are, the rest
as gaps in unary, which takes `bits + 2` bits per number, whatever the numbers are.

No row that was put in is missed. Another row passes for one of them with a chance of at most `2**-bits` per name that
it is looked up by: 1 in 4 billion up to 23,529 rows, 1 in 512 for SST-2's 67,349, 1 in 64 from 100,000 rows on. The
size is at most 100 kB, or a byte per row where there are more than 100,000.

seen_rows = RowFilter.of(splits)
seen_rows.contains(splits.train)  # [True, True, …]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata, SeenRows
from embedgrad_cli.tasks.deduplicate import normalise
from embedgrad_cli.tasks.rows import Row
from embedgrad_cli.tasks.splits import Splits

LARGEST_SIZE = 100_000  # bytes, for up to as many rows
MOST_BITS = 32
SEEN_ROWS = "seen_rows"  # the tensor of an artifact

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class RowFilter:
    """The rows that trained and selected a prompt, and the worked examples and demonstrations in it.

    Args:
        numbers: one per row, sorted.
        parameters: what they mean.
        salt: goes into every digest; the hash of the splits, so that no other artifact has the same chance hits.
    """

    numbers: Numbers
    parameters: SeenRows
    salt: str

    @classmethod
    def of(cls, splits: Splits) -> RowFilter:
        """The filter of everything in these splits but the test rows."""
        seen = [*splits.train, *splits.validation, *splits.demonstrations]
        ambiguous = _ambiguous_queries(chain(seen, splits.test))
        names = {_full_name(row) if normalise(row.query) in ambiguous else normalise(row.query) for row in seen}
        names |= {normalise(example.query) for example in splits.fewshot}
        parameters = SeenRows(
            bits=min(MOST_BITS, 8 * max(LARGEST_SIZE, len(names)) // len(names) - 2),
            num_digests=len(names),
            num_train=len(splits.train),
            num_validation=len(splits.validation),
            num_examples=len(splits.fewshot) + len(splits.demonstrations),
            with_choices=bool(ambiguous),
        )
        return cls(np.sort(_numbers(names, parameters, splits.hash)), parameters, splits.hash)

    @classmethod
    def from_bytes(cls, content: bytes, parameters: SeenRows, salt: str) -> RowFilter:
        """Read what `to_bytes` gave.

        Raises:
            ValueError: the bytes are not those of a filter with these parameters.
        """
        count, bits = parameters.num_digests, parameters.bits
        if count < 1 or not 0 < bits <= MOST_BITS or len(content) != -(-count * (bits + 2) // 8):
            raise ValueError(f"{len(content)} bytes do not hold {count} digests of {bits} bits")
        flags = np.unpackbits(np.frombuffer(content, np.uint8), count=count * (bits + 2))
        places = np.flatnonzero(flags[: 2 * count])
        if len(places) != count:
            raise ValueError(f"{len(places)} digests are marked, and there are {count}")
        high = (places - np.arange(count)).astype(np.uint64)
        low = flags[2 * count :].reshape(count, bits) @ (np.uint64(1) << np.arange(bits, dtype=np.uint64))
        return cls((high << np.uint64(bits)) + low, parameters, salt)

    def to_bytes(self) -> bytes:
        """`bits + 2` bits per number: where in unary its high part ends, then all low parts."""
        count, bits = self.parameters.num_digests, self.parameters.bits
        unary = np.zeros(2 * count, np.uint8)
        unary[(self.numbers >> np.uint64(bits)).astype(np.int64) + np.arange(count)] = 1
        low = self.numbers[:, None] >> np.arange(bits, dtype=np.uint64) & np.uint64(1)
        return np.packbits(np.concatenate([unary, low.astype(np.uint8).ravel()])).tobytes()

    @property
    def false_positive_rate(self) -> float:
        """The largest chance of a row that was not put in to be taken for one that was."""
        names = 2 if self.parameters.with_choices else 1
        return float(names * 2.0**-self.parameters.bits)

    def contains(self, rows: Sequence[Row]) -> list[bool]:
        """For each row, whether it was put in; see `false_positive_rate`."""
        seen = self._holds(normalise(row.query) for row in rows)
        if self.parameters.with_choices:
            seen |= self._holds(map(_full_name, rows))
        return [bool(flag) for flag in seen]

    def _holds(self, names: Iterable[str]) -> npt.NDArray[np.bool_]:
        return np.isin(_numbers(names, self.parameters, self.salt), self.numbers)


def read_seen_rows(path: Path, metadata: ArtifactMetadata) -> RowFilter | None:
    """The filter in an artifact's file, without its vectors; None: an earlier version wrote it.

    Raises:
        ValueError: it is not what the metadata says; or what safetensors raises, if the tensor is not there.
    """
    if metadata.seen_rows is None:
        return None
    with safe_open(path, framework="numpy") as file:
        return RowFilter.from_bytes(file.get_tensor(SEEN_ROWS).tobytes(), metadata.seen_rows, metadata.split_hash)


def _ambiguous_queries(rows: Iterable[Row]) -> set[str]:
    """The queries that are asked with several sets of choices."""
    first, ambiguous = dict[str, list[str]](), set[str]()
    for row in rows:
        query, choices = normalise(row.query), sorted(row.choices)
        if first.setdefault(query, choices) != choices:
            ambiguous.add(query)
    return ambiguous


def _full_name(row: Row) -> str:
    return "\n".join([normalise(row.query), *sorted(row.choices)])  # in a query alone there is no line break


def _numbers(names: Iterable[str], parameters: SeenRows, salt: str) -> Numbers:
    """Numbers in the order of the names, below `num_digests * 2**bits`."""
    digests = b"".join(hashlib.sha256(f"{salt}\n{name}".encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64) % np.uint64(parameters.num_digests << parameters.bits)
