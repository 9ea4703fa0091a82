"""No row that trained or selected a prompt is tested unless the user says so, and then the results say it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import evaluate_config, optimize_config, samples

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.errors import ArtifactError, DataError
from embedgrad_cli.evaluation.overlap import check_overlap
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.tasks.load import load
from embedgrad_cli.tasks.row_filter import RowFilter

COUNT = 60


def stories(numbers: range = range(COUNT)) -> list[tuple[str, str]]:
    return [(f"{'apples' if n % 2 else 'pages'} number {n}", str(n % 2)) for n in numbers]


def write_json_rows(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t, "label": a}) + "\n" for t, a in stories()))
    return folder


def write_spaced_table(folder: Path) -> Path:
    """The same rows as a csv, from the last to the first, with blanks of their own."""
    folder.mkdir()
    lines = [f'"  {text.replace(" ", "   ")} ",{answer}\n' for text, answer in reversed(stories())]
    (folder / "train.csv").write_text("text,label\n" + "".join(lines))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> OptimizeConfig:
    """A prompt of one file from which validation and test are held out."""
    folder = tmp_path_factory.mktemp("overlap")
    config = optimize_config(folder / "run", model_folder, write_json_rows(folder / "data"), train__steps=1)
    config.task.split = replace(config.task.split, validation=None, test=None, num_validation=10, num_test=20)
    optimize.run(config)
    return config


def evaluation(trained: OptimizeConfig, output_dir: Path, **changes: Any) -> EvaluateConfig:
    arms = {"arms": ["seed", "optimized"]}
    return evaluate_config(trained, output_dir, f"{trained.output_dir}/prompt.safetensors", **{**arms, **changes})


def seen_by(trained: OptimizeConfig, config: EvaluateConfig) -> list[str]:
    """The ids of those rows of the evaluation that trained or selected the prompt, by comparing the texts."""
    own = load(trained.task, trained.seed)
    known = {" ".join(row.query.split()) for row in (*own.train, *own.validation)}
    tested = getattr(load(config.task, config.seed), config.split)
    return [row.id for row in tested if " ".join(row.query.split()) in known]


CASES: dict[str, dict[str, Any]] = {
    "another seed": {"seed": 1},
    "more test rows": {"task__split__num_test": 35},
    "a fold": {"task__split__folds": 3, "task__fold": 1, "task__split__num_test": None},
    "its validation split": {"split": "validation"},
    "its training split": {"split": "train"},
    "other names of the choices": {"seed": 1, "task__labels": {"0": "no", "1": "yes"}, "task__choices": ["yes", "no"]},
    "a task that generates": {"seed": 1, "task__kind": "generation", "task__name": "mine"},
    "the same rows in another file": {"task__data_dir": "table", "seed": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_rows_that_the_prompt_has_seen(
    case: str, trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = CASES[case] | (
        {"task__data_dir": str(write_spaced_table(tmp_path / "table"))} if "task__data_dir" in CASES[case] else {}
    )
    config = evaluation(trained, tmp_path / "run", **changes)
    seen = seen_by(trained, config)
    total = len(getattr(load(config.task, config.seed), config.split))
    assert seen
    with pytest.raises(DataError, match=rf"^{len(seen)} of the {total} rows of the {config.split} split trained"):
        evaluate.run(config)
    assert not (tmp_path / "run").exists()

    config.task.overlap = "allow"
    evaluate.run(config)
    results = Results.read(tmp_path / "run/results.json")
    assert results.overlap is not None
    assert (results.overlap.num_rows, results.overlap.num_looked_up, results.overlap.excluded) == (
        len(seen),
        total,
        False,
    )
    assert results.num_examples == total
    assert f"{len(seen)} of {total} examples trained or selected a prompt" in capsys.readouterr().out

    excluding = evaluation(trained, tmp_path / "left", task__overlap="exclude", **changes)
    if len(seen) == total:
        with pytest.raises(DataError, match="leaves no row"):
            evaluate.run(excluding)
        return
    evaluate.run(excluding)
    results = Results.read(tmp_path / "left/results.json")
    assert results.num_examples == total - len(seen)
    assert results.num_skipped == 0
    tested = {arm: {line["id"] for line in samples(tmp_path / "left") if line["arm"] == arm} for arm in results.arms}
    assert tested["seed"] == tested["optimized"]
    assert tested["seed"].isdisjoint(seen)
    assert f"{len(seen)} of {total} examples had trained" in capsys.readouterr().out


def test_an_artifacts_own_test_rows_are_never_refused(trained: OptimizeConfig, tmp_path: Path) -> None:
    file = Path(trained.output_dir) / "prompt.safetensors"
    artifact = load_artifact(file)
    for seed in range(100):
        splits = load(trained.task, seed)
        metadata = replace(artifact.metadata, split_hash=splits.hash)
        save_artifact(tmp_path / "a.safetensors", artifact.prompt, metadata, RowFilter.of(splits))
        own = {"a": load_artifact(tmp_path / "a.safetensors")}
        rows, overlap = check_overlap(splits, "test", own, "error")
        assert rows == splits.test
        assert overlap is not None
        assert overlap.num_rows == 0
        fewer = replace(splits, test=splits.test[::2], hash="of fewer test rows")
        assert check_overlap(fewer, "test", own, "error")[0] == splits.test[::2]
        with pytest.raises(DataError, match="20 of the 20"):
            check_overlap(replace(splits, test=splits.train[:20], hash="another"), "test", own, "error")


def test_every_artifact_among_the_arms_counts(trained: OptimizeConfig, tmp_path: Path) -> None:
    other = replace(trained, output_dir=str(tmp_path / "other"), seed=1)
    optimize.run(other)
    file = str(tmp_path / "other/prompt.safetensors")
    with pytest.raises(DataError, match=r"other/prompt\.safetensors"):
        evaluate.run(evaluation(trained, tmp_path / "run", arms=["optimized", file]))
    arms = ["seed", "optimized", file]
    evaluate.run(evaluation(trained, tmp_path / "run", arms=arms, task__overlap="exclude"))
    results = Results.read(tmp_path / "run/results.json")
    assert results.overlap is not None
    assert results.num_examples == 20 - results.overlap.num_rows
    evaluate.run(evaluation(trained, tmp_path / "texts", arms=["none", "seed"], seed=1))  # no vectors, nothing to see
    assert Results.read(tmp_path / "texts/results.json").overlap is None


def test_graded_later_and_again(trained: OptimizeConfig, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"seed": 1, "task__overlap": "exclude"}
    evaluate.run(evaluation(trained, tmp_path / "whole", **changes))
    whole = Results.read(tmp_path / "whole/results.json")
    evaluate.run(evaluation(trained, tmp_path / "later", mode="predict-only", **changes))
    for _ in range(2):
        evaluate.run(evaluation(trained, tmp_path / "later", mode="regrade", **changes))
        graded = Results.read(tmp_path / "later/results.json")
        assert graded == whole
    assert None not in (whole.overlap, whole.artifact, whole.validation, whole.drift, whole.elsewhere)


def test_an_evaluation_of_an_older_version_is_graded_again(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = evaluation(trained, tmp_path / "run")
    evaluate.run(config)
    (tmp_path / "run/overlap.json").unlink()
    settings = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    del settings["generation"]["seed"], settings["task"]["overlap"]
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(settings))
    evaluate.run(config)
    assert "is finished; nothing was changed" in capsys.readouterr().out
    assert main(["evaluate", "--regrade", f"output_dir={tmp_path}/run", "task.extraction=strict"]) == 0


def test_an_artifact_that_does_not_know_its_rows(
    trained: OptimizeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = load_artifact(Path(trained.output_dir) / "prompt.safetensors")
    save_artifact(tmp_path / "old.safetensors", artifact.prompt, artifact.metadata)
    old = {"old.safetensors": load_artifact(tmp_path / "old.safetensors")}
    own, other = (load(trained.task, seed) for seed in (0, 1))
    assert check_overlap(own, "test", old, "error")[0] == own.test
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert check_overlap(other, "test", old, "error") == (other.test, None)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.partition(":")[0] for message in warnings] == [
        "not known which rows trained the prompt old.safetensors"
    ]
    with pytest.raises(DataError, match="10 of the 10 rows of the validation split"):
        check_overlap(own, "validation", old, "error")  # the very same splits, which the hash says


def test_an_artifact_cannot_allow_it(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = load_artifact(Path(trained.output_dir) / "prompt.safetensors")
    settings = json.loads(json.dumps(artifact.metadata.config.everything))
    settings["task"]["overlap"] = "allow"
    metadata = replace(artifact.metadata, config=replace(artifact.metadata.config, everything=settings))
    file = tmp_path / "forged.safetensors"
    save_artifact(file, artifact.prompt, metadata, artifact.seen_rows)
    line = ["evaluate", f"artifact={file}", "seed=1", "device=cpu", f"output_dir={tmp_path}/run"]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "rows of the test split trained or selected the prompt" in said
    assert "task.overlap=exclude" in said
    assert main([*line, "task.overlap=exclude"]) == 0


def test_a_text_is_measured_on_rows_that_are_new_to_the_prompt(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, own = Path(trained.output_dir) / "prompt.safetensors", load(trained.task, trained.seed)
    less = tmp_path / "less"
    less.mkdir()
    rows = [{"text": row.query, "label": int(row.target == "positive")} for row in (*own.train, *own.validation)]
    (less / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["export", f"artifact={file}", "format=text", "device=cpu"]
    assert main([*line, f"data_dir={less}", f"output_dir={tmp_path}/moved"]) == 2
    said = capsys.readouterr().err
    assert "20 of the 20 rows of the test split trained or selected the prompt" in said
    assert "data_dir=DIR" in said
    assert "task.overlap" not in said
    assert main([*line, f"output_dir={tmp_path}/own"]) == 0


def test_damaged_digests_are_refused(trained: OptimizeConfig, tmp_path: Path) -> None:
    content = (Path(trained.output_dir) / "prompt.safetensors").read_bytes()
    file, written = tmp_path / "a.safetensors", b'num_digests\\": 40'
    assert written in content
    file.write_bytes(content.replace(written, b'num_digests\\": 47'))
    with pytest.raises(ArtifactError, match="do not hold 47 digests"):
        load_artifact(file)


def test_drawn_answers_have_a_seed_of_their_own(trained: OptimizeConfig, tmp_path: Path) -> None:
    drawn: dict[str, Any] = {"generation__num_samples": 2, "generation__temperature": 1.5, "task__kind": "generation"}
    arms = {"arms": ["seed"]}

    def outputs(name: str, **changes: Any) -> dict[tuple[str, int], str]:
        evaluate.run(evaluation(trained, tmp_path / name, **drawn, **arms, **changes))
        return {(line["query"], line["sample"]): line["output"] for line in samples(tmp_path / name)}

    first, again, other = outputs("a"), outputs("b"), outputs("c", generation__seed=1)
    assert first == again
    assert first.keys() == other.keys()
    assert first != other
    of_split = outputs("d", seed=1)
    shared = first.keys() & of_split.keys()
    assert shared
    assert shared < first.keys()
    assert {key: first[key] for key in shared} == {key: of_split[key] for key in shared}
