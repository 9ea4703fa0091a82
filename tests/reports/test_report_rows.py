"""Rows as the page's data: all of them, whole or cut, and nothing in them leaves its script element."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser

import pytest
from tests.reports.run_files import NASTY, sample, samples

from embedgrad_cli.reports.rows import CUT, rows_data, script_json
from embedgrad_cli.storage.sample_records import Sample


def rows(lines: list[Sample], largest: int = 10**9) -> list[list[object]]:
    return json.loads(rows_data(lines, "seed", "optimized", largest).json)["rows"]


@pytest.mark.parametrize("seed", range(20))
def test_every_row_and_answer_is_in_the_data_as_it_was(seed: int) -> None:
    chance = random.Random(seed)
    right = [[chance.random() < 0.5 for _ in range(30)] for _ in range(3)]
    lines = samples(right, lambda _: "".join(chance.choices([*NASTY, "plain "], k=4)))
    found = rows(lines)
    assert [row[0] for row in found] == [f"test:{number}" for number in range(30)]
    for number, (name, query, target, arms) in enumerate(found):
        of_row = [line for line in lines if line.id == name]
        assert (query, target) == (of_row[0].query, of_row[0].answer)
        assert [answers[0][0] for _, answers in arms] == [line.output for line in of_row]
        assert [bool(answers[0][2]) for _, answers in arms] == [of_arm[number] for of_arm in right]


class Scripts(HTMLParser):
    """What an HTML parser finds in script elements, and every element."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("nasty", NASTY)
def test_no_text_ends_its_script(nasty: str) -> None:
    data = script_json({"text": nasty, nasty: 1})
    parser = Scripts()
    parser.feed(f'<script type="application/json">{data}</script>')
    assert parser.elements == ["script"]
    assert json.loads(parser.text) == {"text": nasty, nasty: 1}
    assert not set("<>&\u2028\u2029") & set(data)


def test_long_texts_are_cut_and_short_ones_and_all_rows_are_kept() -> None:
    lines = [
        sample(number, arm, True, "long " * 400 if number % 2 else "short")
        for number in range(200)
        for arm in ("seed", "optimized")
    ]
    data = rows_data(lines, "seed", "optimized", largest=100_000)
    assert len(data.json) <= 100_000
    found = json.loads(data.json)["rows"]
    assert len(found) == data.num_rows == 200
    assert data.cut is not None
    for number, row in enumerate(found):
        output = row[3][0][1][0][0]
        assert output == "short" if not number % 2 else output.endswith(CUT)
        assert number % 2 == 0 or len(output) > 300  # the room that the short ones leave is used


def test_texts_of_any_script_stay_within_the_room() -> None:
    data = rows_data(
        samples([[True] * 300] * 3, lambda number: "漢字 😀 " * number), "seed", "optimized", largest=200_000
    )
    assert 150_000 < len(data.json.encode()) <= 200_000


def test_what_fits_is_whole() -> None:
    lines = samples([[True] * 9] * 3, lambda number: "text " * number)
    assert rows_data(lines, "seed", "optimized").cut is None


def test_of_several_answers_the_majority_s_counts() -> None:
    lines = [
        sample(0, arm, output == "4", output, which=which)
        for arm in ("seed", "optimized")
        for which, output in enumerate(["5", "4", "4"])
    ]
    ((_, _, _, arms),) = rows(lines)
    assert [counted for counted, _ in arms] == [1, 1]
    assert [len(answers) for _, answers in arms] == [3, 3]
