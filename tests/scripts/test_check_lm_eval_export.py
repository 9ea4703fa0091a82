"""The harness's recipe in docs/serving.md asks for the bare query, and what it answers is what embedgrad answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.exports.conftest import make_case

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import check_lm_eval_export as script  # noqa: E402
from embedgrad_cli.storage.files import write_json  # noqa: E402

PROGRAM = ROOT / ".venv-lm-eval/bin/lm-eval"


@pytest.mark.parametrize("name", script.DATA_DIRS)
def test_the_task_knows_nothing_of_the_prompt(name: str) -> None:
    task, source = script.task_of(name), script.TASKS[name]
    assert task["task"] == f"{name}_prompted"
    assert (task["dataset_path"], task["doc_to_target"]) == (source.loader, source.label)
    assert task["dataset_kwargs"] == {"data_files": {"test": source.file}, **source.options}
    assert task["doc_to_text"] == f"{{{{ {source.query} | trim }}}}"
    assert task["doc_to_choice"] == script.CHOICES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both sides' files for 400 rows, of which the harness has the last wrong."""
    rows: list[dict[str, Any]] = [
        {"arm": "optimized", "query": f"film {i}", "output": "positive", "correct": True} for i in range(400)
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(tmp_path / "evaluation/results.json", {"arms": {"optimized": {"accuracy": 1.0}}})
    return tmp_path


def harness(folder: Path, wrong: int, rows: int = 400) -> None:
    samples = [
        {
            "doc": {"sentence": f"film {i} "},
            "filtered_resps": [["-2.0", "False"], ["-3.0" if i < wrong else "-1.0", "True"]],
            "acc": float(i >= wrong),
        }
        for i in range(rows)
    ]
    (folder / "out").mkdir()
    text = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / "out/samples_sst2_prompted_1.jsonl").write_text(text)
    results = {"sst2_prompted": {"acc,none": 1 - wrong / rows}}
    write_json(folder / "out/results_1.json", {"results": results, "n-samples": {"sst2_prompted": {"effective": rows}}})


def test_less_than_half_a_point_is_allowed_and_every_difference_is_named(folder: Path) -> None:
    harness(folder, wrong=1)
    found = script.compare("sst2", folder)
    assert found["passed"]
    assert found["differences"] == [{"query": "film 0", "embedgrad": "positive", "lm_eval": "negative"}]


@pytest.mark.parametrize(("wrong", "rows"), [(3, 400), (0, 399)])
def test_more_than_half_a_point_or_a_missing_row_fails(wrong: int, rows: int, folder: Path) -> None:
    harness(folder, wrong, rows)
    assert not script.compare("sst2", folder)["passed"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(script.UserError, match=r"--data-dir DIR.*validation\.tsv"):
        script.main(["--task", "sst2"])
    with pytest.raises(script.HarnessError, match="`make test-lm-eval`"):
        script.run_recipe("sst2", tmp_path, tmp_path / "lm-eval")


@pytest.mark.skipif(not PROGRAM.exists(), reason="lm-evaluation-harness is not installed: make test-lm-eval")
def test_a_few_rows_by_the_harness_itself(tmp_path: Path) -> None:
    """A random model, with a prompt on both sides of the sentence."""
    case = make_case(tmp_path, placement="both-sides")
    data = tmp_path / "data"
    data.mkdir()
    words = ["dull", "a film", '"gripping', "funny and humane", "slow , but funny"]
    for split, count in (("train", 240), ("validation", 20)):
        lines = [f"{words[i % 5]} , {split} {i} \t{i % 2}\n" for i in range(count)]
        (data / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    command = ["--task", "sst2", "--data-dir", str(data), "--artifact", str(case.artifact)]
    assert script.main([*command, "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rows"] == {"embedgrad": 20, "lm_eval": 20}
    assert result["differences"] == []
