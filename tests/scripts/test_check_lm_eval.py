"""The comparison asks the harness what embedgrad asks, pairs the right rows, and fails when it should."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from tests.conftest import PLACEMENTS, SEEDS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import check_lm_eval  # noqa: E402
from check_lm_eval import TASKS, Answer, compare, explain, harness_task, match, score_gap  # noqa: E402
from embedgrad_cli.config.schema import TemplateConfig  # noqa: E402
from embedgrad_cli.core.model.language_model import LanguageModel  # noqa: E402
from embedgrad_cli.core.text.template import PromptTemplate  # noqa: E402

PROGRAM = ROOT / ".venv-lm-eval/bin/lm_eval"
CHOICES = ["negative", "positive"]


def answer(query: str, scores: tuple[float, float], correct: bool = True, tokens: int = 1) -> Answer:
    return Answer(query, CHOICES[scores[1] > scores[0]], correct, list(scores), [[tokens], [tokens]])


@pytest.mark.parametrize("seeds", [None, SEEDS])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_harness_is_asked_what_embedgrad_asks(
    seeds: list[str] | None, placement: str, model: LanguageModel, tmp_path: Path
) -> None:
    prompt_template = PromptTemplate(PLACEMENTS[placement], seeds, model.tokenizer, model.is_chat)
    task = harness_task("name", TASKS["sst2"], tmp_path, prompt_template, CHOICES)
    sentence = ' a "gripping" , {{ funny }} and humane film \t'
    environment = jinja2.Environment(keep_trailing_newline=True)  # as the harness has it
    text = environment.from_string(task["doc_to_text"]).render(sentence=sentence, label=1)
    assert text == prompt_template.render(sentence.strip()).text
    assert task["doc_to_choice"] == CHOICES
    assert task["dataset_kwargs"]["data_files"] == {"test": str(tmp_path / "validation.tsv")}


def test_a_blank_at_the_end_of_the_text_stands_in_front_of_the_choices(model: LanguageModel, tmp_path: Path) -> None:
    template = TemplateConfig([], "{prompt}\n{query}\nAnswer: ")
    prompt_template = PromptTemplate(template, SEEDS, model.tokenizer, is_chat=False)
    task = harness_task("name", TASKS["sst2"], tmp_path, prompt_template, CHOICES)
    assert task["doc_to_text"].endswith("\nAnswer:")
    assert task["target_delimiter"] == " "


def test_rows_are_matched_by_their_text() -> None:
    ours = [answer("a film", (0, 1)), answer("no film", (1, 0)), answer("another", (0, 1))]
    theirs = [answer("another ", (0, 2)), answer("a  film ", (0, 3)), answer("a film", (0, 4))]
    pairs, missing = match(ours, theirs)
    assert [(a.query, b.query) for a, b in pairs] == [("a film", "a  film "), ("another", "another ")]
    assert [row.query for row in missing] == ["no film"]


def test_a_constant_that_all_choices_share_is_no_difference() -> None:
    assert score_gap(answer("", (-1, -3)), answer("", (-11, -13))) == 0
    assert score_gap(answer("", (-1, -3)), answer("", (-1, -4))) == 0.5


def test_differences_are_explained() -> None:
    ours = answer("", (-1.0, -1.00001))
    assert explain(ours, answer("", (-1.00001, -1.0))) == "tie"
    assert explain(ours, answer("", (-5.0, -1.0))) == "scores"
    assert explain(ours, answer("", (-5.0, -1.0), tokens=2)) == "tokenisation"
    assert explain(ours, replace(ours, correct=False)) == "label"


def test_less_than_99_of_100_rows_fail() -> None:
    ours = [answer(str(i), (0, 1)) for i in range(100)]
    turned, wrong = answer("0", (1, 0)), answer("1", (0, 1), correct=False)
    assert compare(ours, ours)["passed"]
    one = compare(ours, [turned, *ours[1:]])
    assert (one["passed"], one["same_choice"], one["same_scores"]) == (True, 99, 99)
    assert one["differences"][0]["lm_eval"] == {"choice": "negative", "correct": True, "scores": [1, 0]}
    assert not compare(ours, [turned, wrong, *ours[2:]])["passed"]
    by_length = compare(ours, [replace(row, norm_choice="positive") for row in ours[:2]] + ours[2:])
    assert (by_length["passed"], by_length["same_choice"], by_length["same_norm_choice"]) == (False, 100, 98)
    other_scores = compare(ours, [answer("0", (0, 2)), answer("1", (0, 2)), *ours[2:]])
    assert (other_scores["passed"], other_scores["same_choice"], other_scores["same_scores"]) == (False, 100, 98)
    missing = compare(ours, ours[1:])
    assert (missing["passed"], missing["missing"]) == (False, ["0"])
    assert not compare(ours, [])["passed"]


def test_a_task_without_data_and_a_missing_program_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(check_lm_eval.UserError, match=r"--data-dir DIR.*validation\.tsv"):
        check_lm_eval.main(["--task", "sst2"])
    with pytest.raises(check_lm_eval.HarnessError, match="`make test-lm-eval`"):
        check_lm_eval.main(["--lm-eval", str(tmp_path / "lm_eval")])


@pytest.mark.skipif(not PROGRAM.exists(), reason="lm-evaluation-harness is not installed: make test-lm-eval")
def test_a_few_rows_by_the_harness_itself(model_folder: Path, tmp_path: Path) -> None:
    """A random model, repeated rows, and a quotation mark that must not hide the rows after it."""
    words = ["dull", "a film", '"gripping', "funny and humane", "slow , but funny", "dull"]
    for split in ("train", "validation"):
        lines = [f"{split} {text} \t{i % 2}" for i, text in enumerate(words[:5])]
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join([*lines, lines[0]]) + "\n")
    command = ["--task", "sst2", "--data-dir", str(tmp_path), "--model", str(model_folder)]
    # The product holds 200 rows out of train, so there are more of them than the harness sees.
    with (tmp_path / "train.tsv").open("a") as file:
        file.writelines(f"one more sentence , number {i}\t{i % 2}\n" for i in range(201))
    assert check_lm_eval.main([*command, "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    for arm in ("none", "seed"):
        assert result["arms"][arm]["rows"] == {"embedgrad": 5, "lm_eval": 6, "compared": 5}
        assert result["arms"][arm]["same_tokens"] == 5
