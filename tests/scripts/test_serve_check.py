"""The comparison behind `make test-serving`: equal answers, ties, and answers that are wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.exports.conftest import QUERIES, make_case

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import serve_check as script
from embedgrad_cli import assets
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import Row
from serving.compare import TIE, Reference, compare
from serving.optimized import check_training
from time_engines import starts_in


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


def test_where_the_results_count_other_answers_ties_alone_explain(reference: Reference) -> None:
    """The choices of a task whose labels are scored are not the answers that engines give."""
    unreported = replace(reference, reported=None)
    assert compare("route", "system", reference.answers, unreported).is_explained
    other = [[*reference.answers[0][:1], 5], *reference.answers[1:]]
    assert not compare("route", "system", other, unreported).is_explained


@pytest.mark.slow
def test_another_model_and_task_without_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that keeps float16 is compared in float32, by the routes that this environment has."""
    words = ["--model", str(assets.resolve("embedded:tiny")), "--placements", "system", "--steps", "1"]
    words += ["--examples", "4", "--out", str(tmp_path), "task=reviews", "prompt=sentiment", "train.batch_size=2"]
    monkeypatch.setattr(sys, "argv", ["serve_check.py", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert script.main() == 0
    assert json.loads((tmp_path / "base/config.json").read_text())["dtype"] == "float32"
    routes = json.loads((tmp_path / "serve_check.json").read_text())["routes"]
    assert [(one["route"], one["equal"], one["reported"]) for one in routes] == [
        ("transformers + model", 4, None),
        ("PEFT + peft", 4, None),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"seconds": 7.0}, None),
        ({"loss": 1.1}, "the steps in metrics.jsonl differ"),
        ({"vectors": 2.0}, "the vectors of step 1 differ"),
        ({"chosen": 0, "vectors": 2.0}, "some answer in validation differs"),
    ],
)
def test_an_engine_that_changes_the_training_ends_the_script(
    tmp_path: Path, change: dict[str, float], said: str | None
) -> None:
    def run(name: str, loss: float = 1.0, seconds: float = 0.1, chosen: float = 1, vectors: float = 1.0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"step": 0, "validation_loss": 9.0}, {"step": 1, "loss": loss, "seconds": seconds}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "results.json").write_text(json.dumps({"validation": {"step": chosen}}))
        save_file({"soft_prompt": torch.full((2, 3), vectors)}, folder / "prompt.safetensors")
        return folder

    runs = run("ours"), run("theirs", **change)
    if said is None:
        check_training(*runs)
    else:
        with pytest.raises(SystemExit, match=said):
            check_training(*runs)


def test_every_start_of_vllm_is_taken_off_the_seconds(tmp_path: Path) -> None:
    log = tmp_path / "embedgrad.log"
    log.write_text("… INFO …: vLLM 0.32.0 started in 12.5 seconds\n…\n… INFO …: vLLM 0.32.0 started in 2.0 seconds\n")
    assert list(starts_in(log)) == [12.5, 2.0]
