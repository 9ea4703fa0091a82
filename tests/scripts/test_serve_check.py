"""The comparison behind `make test-serving`: equal answers, ties, and answers that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tests.exports.conftest import QUERIES, make_case

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from embedgrad_cli.core.forward import Forward
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.data import Row
from serving.compare import TIE, Reference, compare


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    case = make_case(tmp_path_factory.mktemp("case"))
    rows = [Row(f"test:{number}", query, "7", "7") for number, query in enumerate(QUERIES)]
    forward = Forward(case.model, case.examples)
    return Reference(rows, case.examples, case.answers(), forward, case.prompt, graders.get("last-number", None))


def test_equal_answers_with_or_without_the_token_that_ends_them(reference: Reference) -> None:
    end = min(reference.end_ids)
    found = compare("route", [[*answer, end] for answer in reference.answers], reference)
    assert (found.equal, found.total, found.differences) == (len(QUERIES), len(QUERIES), [])


def test_another_token_is_reported_with_the_gap_between_the_logits(reference: Reference) -> None:
    answers = [list(answer) for answer in reference.answers]
    forward, example = reference.forward, reference.examples[0]
    tokens, mask = forward.pad([[*example.tokens, *answers[0][:2]]])
    with torch.no_grad():
        embeds = forward.embed(tokens, reference.prompt)
        logits = forward.model.network(inputs_embeds=embeds, attention_mask=mask.long()).logits[0, -1]
    worst = int(logits.argmin())
    expected = (logits[answers[0][2]] - logits[worst]).item()
    answers[0][2] = worst
    found = compare("route", answers, reference)
    assert found.equal == len(QUERIES) - 1
    assert found.differences[0]["place"] == 2
    assert found.differences[0]["gap"] == pytest.approx(expected, rel=1e-4)
    assert expected > TIE
    assert not found.is_explained


def test_an_answer_that_stops_early_is_a_difference(reference: Reference) -> None:
    answers = [list(answer) for answer in reference.answers]
    answers[1] = answers[1][:3]
    found = compare("route", answers, reference)
    assert [one["place"] for one in found.differences] == [3]
