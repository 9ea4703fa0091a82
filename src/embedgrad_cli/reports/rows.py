"""Every tested row with every arm's answers, as the JSON that the page's script reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from embedgrad_cli.evaluation.vote import majority
from embedgrad_cli.storage.sample_records import Sample

LARGEST = 2_700_000  # bytes, so that a report stays below 3 MB
CUT = " […]"
ENDINGS = {"limit": 1, "stop": 2}  # as `templates/rows.js` numbers them; all else is 0
# What could end a script element, or begin a comment or a markup declaration in it.
ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@dataclass(frozen=True)
class RowsData:
    """`arms` are their names in order; `rows` the lines of samples.jsonl, row by row and arm by arm.

    `cut` is the number of bytes that longer texts were cut to, None if all are whole.
    """

    json: str
    arms: list[str]
    num_rows: int
    cut: int | None


def rows_data(samples: Sequence[Sample], baseline: str, candidate: str, largest: int = LARGEST) -> RowsData:
    """The rows, for a script element: nothing in them can end it.

    Args:
        baseline, candidate: the arms that are compared first.
        largest: bytes that the rows should take; the longest texts are cut to get there, no row is left out.
    """
    arms = list(dict.fromkeys(sample.arm for sample in samples))
    cap = _longest_kept(samples, arms, largest)

    def kept(text: str) -> str:
        if cap is None or _size(text) <= cap:
            return text
        return text.encode("utf-8", "replace")[:cap].decode("utf-8", "ignore") + CUT

    rows = _rows(samples, arms, kept)
    content = {"arms": arms, "baseline": baseline, "candidate": candidate, "rows": rows}
    return RowsData(script_json(content), arms, len(rows), cap)


def script_json(content: object) -> str:
    """JSON that may stand in a script element whatever its texts hold: `<`, `>` and `&` are escaped."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).translate(ESCAPES)


def _rows(samples: Sequence[Sample], arms: Sequence[str], kept: Callable[[str], str]) -> list[list[object]]:
    return [_row(list(group), arms, kept) for _, group in groupby(samples, key=lambda sample: sample.id)]


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
    ending = ENDINGS.get(sample.ending or "", 0)
    return [
        kept(sample.output),
        0 if found == sample.output else found and kept(found),
        int(bool(sample.correct)),
        ending,
    ]


def _longest_kept(samples: Sequence[Sample], arms: Sequence[str], largest: int) -> int | None:
    """The longest text that is kept whole, in bytes; None: all are, as they fit into so many bytes."""
    lengths: list[int] = []

    def empty(text: str) -> str:
        lengths.append(_size(text))
        return ""

    room = largest - _size(_rows(samples, arms, empty))
    if sum(lengths) <= room:
        return None
    shorter = 0
    for number, length in enumerate(sorted(lengths)):  # those are whole; the others share what is left of the room
        share = (room - shorter) // (len(lengths) - number)
        if length > share:
            return max(share - _size(CUT), 1)
        shorter += length
    return None


def _size(content: object) -> int:
    return len(script_json(content).encode("utf-8", "replace"))
