"""Every tested row with every arm's answers, as the JSON that the page's script reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from embedgrad_cli.evaluation.vote import majority
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.run_records import Sample

LARGEST = 2_400_000  # bytes, so that a report stays below 3 MB
CUT = " … (cut here; the whole text is in samples.jsonl)"
ENDINGS = {"limit": 1, "stop": 2}
# What could end a script element, or begin a comment or a markup declaration in it.
ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@dataclass(frozen=True)
class RowsData:
    """`arms` are their names in order; `rows` the lines of samples.jsonl, row by row and arm by arm.

    `cut` is the length that longer texts were cut to, None if all are whole.
    """

    json: str
    arms: list[str]
    num_rows: int
    cut: int | None


def read_samples(file: Path) -> list[Sample]:
    """The graded lines of a samples.jsonl.

    Raises:
        UserError: a line is not what `optimize` and `evaluate` write.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Sample.parse(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1)]


def rows_data(samples: Sequence[Sample], baseline: str, candidate: str, largest: int = LARGEST) -> RowsData:
    """The rows, for a script element: nothing in them can end it.

    Args:
        baseline, candidate: the arms that are compared first.
        largest: bytes that the rows should take; the longest texts are cut to get there, no row is left out.
    """
    arms = list(dict.fromkeys(sample.arm for sample in samples))
    cap = _longest_kept(samples, largest)

    def kept(text: str) -> str:
        return text if cap is None or len(text) <= cap else text[:cap] + CUT

    rows = [_row(list(group), arms, kept) for _, group in groupby(samples, key=lambda sample: sample.id)]
    content = {"arms": arms, "baseline": baseline, "candidate": candidate, "rows": rows}
    return RowsData(script_json(content), arms, len(rows), cap)


def script_json(content: Json) -> str:
    """JSON that may stand in a script element whatever its texts hold: `<`, `>` and `&` are escaped."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).translate(ESCAPES)


def _row(samples: Sequence[Sample], arms: Sequence[str], kept: Callable[[str], str]) -> list[object]:
    """`[id, query, target, [an arm's [number of the answer that counts, [answer, …]], …]]`."""
    first, by_arm = samples[0], {name: [one for one in samples if one.arm == name] for name in arms}
    answers = []
    for of_arm in by_arm.values():
        counted = of_arm.index(majority(of_arm)) if of_arm else 0
        answers.append([counted, [_answer(one, kept) for one in of_arm]])
    return [first.id, kept(first.query), kept(first.answer), answers]


def _answer(sample: Sample, kept: Callable[[str], str]) -> list[object]:
    """`[output, what was found in it, 1 if that is right, how it ended]`; found is 0 where it is the whole output."""
    found = sample.extracted
    ending = {"limit": 1, "stop": 2}.get(sample.ending or "", 0)
    return [
        kept(sample.output),
        0 if found == sample.output else found and kept(found),
        int(bool(sample.correct)),
        ending,
    ]


def _longest_kept(samples: Sequence[Sample], largest: int) -> int | None:
    """The longest text that is kept whole, in characters; None: all are, as they fit into so many bytes."""
    lengths = sorted(_escaped(text) for text in _texts(samples))
    around = 40 * len(samples)
    total = sum(lengths)
    if total + around <= largest:
        return None
    room, shorter = largest - around, 0
    for number, length in enumerate(lengths):  # the shorter ones are whole; the others share what is left of the room
        share = (room - shorter) // (len(lengths) - number)
        if length > share:
            return max(share - len(CUT), 20)
        shorter += length
    return None


def _texts(samples: Sequence[Sample]) -> Iterator[str]:
    for _, group in groupby(samples, key=lambda sample: sample.id):
        of_row = list(group)
        yield from (of_row[0].query, of_row[0].answer, *(one.output for one in of_row))


def _escaped(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).translate(ESCAPES).encode("utf-8", "replace"))
