"""No prompt is tested on rows that trained or selected it, unless the user says so (`task.overlap`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from embedgrad_cli.errors import DataError
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.results_record import Overlap
from embedgrad_cli.tasks.load import Row, Splits
from embedgrad_cli.tasks.row_filter import RowFilter

log = logging.getLogger(__name__)

WAYS_OUT = (
    "Evaluate on the artifact's own test split (its own task and seed, split=test), leave these rows out of every arm "
    "with task.overlap=exclude, or keep them, counted in the results, with task.overlap=allow."
)
RARE = 0.001  # chance hits of a filter that are less likely than this are no chance hits


class KnowsItsRows(Protocol):
    """What is asked of an artifact here; the vectors need not be there."""

    @property
    def metadata(self) -> ArtifactMetadata: ...

    @property
    def seen_rows(self) -> RowFilter | None: ...


def check_overlap(
    splits: Splits,
    split: str,
    artifacts: Mapping[str, KnowsItsRows],
    policy: Literal["error", "exclude", "allow"],
    ways_out: str = WAYS_OUT,
) -> tuple[list[Row], Overlap | None]:
    """Find the rows of a split that trained or selected one of the artifacts.

    An artifact made with these very splits needs no looking up: its test rows are new to it, all others are not. Else
    its digests are asked, which in very large data know some rows by chance (see `tasks.row_filter`). `error` lets as
    many pass as chance explains: it refuses when the expected number of chance hits gives so many with a probability
    below 0.001. So a few rows that did train a prompt may be among as many chance hits; the results carry both numbers.
    `exclude` leaves out chance hits too.

    Args:
        split: train, validation or test.
        artifacts: by file.
        policy: refuse such rows, leave them out, or keep them.
        ways_out: what a refusal ends with.

    Returns: the rows to evaluate on, and what was found; None if no artifact is there, or none knows its rows.

    Raises:
        DataError: there are such rows and the policy is `error`, or no row is left.
    """
    rows = splits.rows_of(split)
    found = _look_up(rows, splits, split, artifacts)
    if found is None:
        return rows, None
    if found.refused and policy == "error":
        raise DataError(f"{'; '.join(found.refused)}, so an accuracy there is none on new rows. {ways_out}")
    overlap = Overlap(
        num_rows=sum(found.is_seen),
        num_looked_up=len(rows),
        expected_by_chance=float(f"{found.expected:.2g}"),
        excluded=policy == "exclude",
    )
    if overlap.excluded:
        rows = [row for row, seen in zip(rows, found.is_seen, strict=True) if not seen]
        if not rows:
            raise DataError(
                f"task.overlap=exclude leaves no row of the {split} split: {'; '.join(found.refused)}. Evaluate on "
                "the prompt's own test split, split=test, or on other data."
            )
    return rows, overlap


@dataclass(frozen=True)
class _LookedUp:
    """What artifacts say of the rows of a split.

    Args:
        is_seen: for each row, whether it trained or selected one of them.
        expected: how many such there would be by chance.
        refused: of each artifact that knows more than chance explains, so in words.
    """

    is_seen: list[bool]
    expected: float
    refused: list[str]


def _look_up(
    rows: Sequence[Row], splits: Splits, split: str, artifacts: Mapping[str, KnowsItsRows]
) -> _LookedUp | None:
    """None: there is no artifact, or none knows its rows."""
    is_seen, expected, refused, is_known = [False] * len(rows), 0.0, list[str](), False
    for file, artifact in artifacts.items():
        flags, by_chance = _seen(artifact, rows, splits.hash, split)
        if flags is None:
            log.warning(
                "not known which rows trained the prompt %s: it was made before artifacts kept that, and the %s split "
                "here is not its own test split",
                file,
                split,
            )
            continue
        is_known, expected = True, expected + by_chance
        is_seen = [a or b for a, b in zip(is_seen, flags, strict=True)]
        if not _is_chance(sum(flags), by_chance):
            refused.append(
                f"{sum(flags)} of the {len(rows)} rows of the {split} split trained or selected the prompt {file}"
            )
    return _LookedUp(is_seen, expected, refused) if is_known else None


def _seen(artifact: KnowsItsRows, rows: Sequence[Row], split_hash: str, split: str) -> tuple[list[bool] | None, float]:
    """For each row whether it trained or selected the prompt (None: not known), and how many such by chance."""
    if artifact.metadata.split_hash == split_hash:
        return [split != "test"] * len(rows), 0.0
    if artifact.seen_rows is None:
        return None, 0.0
    return artifact.seen_rows.contains(rows), len(rows) * artifact.seen_rows.false_positive_rate


def _is_chance(hits: int, expected: float) -> bool:
    """Whether a Poisson variable with this mean is `hits` or more with a probability of at least `RARE`."""
    if hits == 0 or expected == 0:
        return hits == 0
    fewer = math.fsum(math.exp(i * math.log(expected) - expected - math.lgamma(i + 1)) for i in range(hits))
    return 1 - fewer >= RARE
