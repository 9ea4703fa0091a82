"""The comparison behind `make test-serving`: equal answers, ties, and answers that are wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.exports.conftest import QUERIES, make_case

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import Row
from serving.compare import TIE, Reference, compare


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    case = make_case(tmp_path_factory.mktemp("case"))
    rows = [Row(f"test:{number}", query, "7", "7") for number, query in enumerate(QUERIES)]
    grader = graders.get("last-number", None)
    return Reference(rows, case.examples, case.answers(), case.model, case.prompt, grader, reported=0)


def test_equal_answers_with_or_without_the_token_that_ends_them(reference: Reference) -> None:
    end = min(reference.end_ids)
    found = compare("route", "system", [[*answer, end] for answer in reference.answers], reference)
    assert (found.equal, found.total, found.differences) == (len(QUERIES), len(QUERIES), [])


def test_another_token_is_reported_with_the_gap_between_the_logits(reference: Reference) -> None:
    answers = [list(answer) for answer in reference.answers]
    model, example = reference.model, reference.examples[0]
    with torch.no_grad():
        embeds = reference.prompt.embed(torch.tensor([[*example.tokens, *answers[0][:2]]]), model)
        logits = model.network(inputs_embeds=embeds).logits[0, -1]
    worst = int(logits.argmin())
    expected = (logits[answers[0][2]] - logits[worst]).item()
    answers[0][2] = worst
    found = compare("route", "system", answers, reference)
    assert found.equal == len(QUERIES) - 1
    assert found.differences[0]["place"] == 2
    assert found.differences[0]["gap"] == pytest.approx(expected, rel=1e-4)
    assert expected > TIE
    assert not found.is_explained


def test_an_answer_that_stops_early_is_a_difference(reference: Reference) -> None:
    answers = [list(answer) for answer in reference.answers]
    answers[1] = answers[1][:3]
    found = compare("route", "system", answers, reference)
    assert [one["place"] for one in found.differences] == [3]


def test_the_accuracy_is_that_of_the_results_but_for_ties(reference: Reference) -> None:
    assert compare("route", "system", reference.answers, reference).is_explained
    assert not compare("route", "system", reference.answers, replace(reference, reported=1)).is_explained


def test_a_tie_that_changes_a_grade_explains_it(reference: Reference) -> None:
    """A model whose logits are all equal answers by nothing but ties."""
    network = reference.model.network
    head = network.get_output_embeddings()
    before = head.weight.data.clone()
    head.weight.data.zero_()
    try:
        right = reference.model.tokenizer("#### 7", add_special_tokens=False)["input_ids"]
        found = compare("route", "system", [right, *reference.answers[1:]], reference)
    finally:
        head.weight.data.copy_(before)
    assert [one["correct"] for one in found.differences] == [1]
    assert found.correct == 1
    assert found.is_explained
    found.reported = 1
    assert not found.is_explained
