"""Any mix of arms on the same rows, each input computed once, and what results say about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import (
    CHAT_TEMPLATE,
    PLACEMENTS,
    SEEDS,
    evaluate_config,
    make_model,
    optimize_config,
    samples,
)

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.errors import DataError
from embedgrad_cli.evaluation.arms import ArmPrompt, build_arms
from embedgrad_cli.evaluation.significance import holm, pass_at_k
from embedgrad_cli.tasks.load import load

A, B = "text:Give the answer.", "text:Solve the problem, please."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Word problems of two levels, one of them long."""
    folder = tmp_path_factory.mktemp("data")
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [
            {"q": f"Tom has {start + i} apples.", "a": f"#### {i % 3}", "level": f"Level {1 + 9 * (i % 2)}"}
            for i in range(10)
        ]
        rows[7]["q"] += " How many apples does he have now?" * 9
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def problem(tmp_path: Path, model_folder: Path, data: Path) -> OptimizeConfig:
    """A generation task; a random model's answers are graded by their last number."""
    changes: dict[str, Any] = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number"}
    changes |= {"query": "{q}", "target": "{a}", "keep": ["level"], "max_new_tokens": 12}
    config = optimize_config(tmp_path / "trained", model_folder, data, train__steps=2, train__eval_every=2)
    for key, value in changes.items():
        setattr(config.task, key, value)
    return config


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def test_texts_alone_need_no_artifact_and_no_seed(problem: OptimizeConfig, tmp_path: Path) -> None:
    config = evaluate_config(problem, tmp_path / "run", arms=["none", "bare", A, B], prompt__text=None)
    accuracy = evaluate.run(config)
    got = results(tmp_path / "run")
    assert list(got["arms"]) == ["none", "bare", A, B]
    assert [c["baseline"] for c in got["comparisons"]] == ["none"] * 3
    assert got["comparison"]["candidate"] == "bare"
    assert accuracy == got["arms"]["bare"]["accuracy"]
    assert [c["holm_p"] for c in got["comparisons"]] == holm([c["mcnemar_p"] for c in got["comparisons"]])
    hashes = {(line["id"], line["prompt_hash"]) for line in samples(tmp_path / "run")}
    assert len(hashes) == 40, "four arms, four inputs"
    alone = evaluate_config(problem, tmp_path / "alone", arms=[B], prompt__text=None)
    evaluate.run(alone)
    assert results(tmp_path / "alone")["arms"][B] == got["arms"][B]
    assert results(tmp_path / "alone")["comparison"] is None


def test_a_row_whose_choices_fit_behind_it_is_no_too_long_one(
    tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    config, model = optimize_config(tmp_path, model_folder, choice_data), make_model()
    how = (load(config.task, 0).test[:1], model, config.template, config.task, {"none": ArmPrompt()})
    arm = build_arms(*how).arms["none"]
    fits = len(arm.examples[0].tokens) + max(map(len, arm.choices[arm.options[0]].ids))
    model.network.config.max_position_embeddings = fits
    assert build_arms(*how).arms["none"].examples == arm.examples
    model.network.config.max_position_embeddings = fits - 1
    with pytest.raises(DataError, match=f"needs {fits} tokens"):
        build_arms(*how)


def test_files_stand_beside_texts_and_equal_inputs_are_computed_once(
    problem: OptimizeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimize.run(problem)
    file = str(tmp_path / "trained/prompt.safetensors")
    computed: list[str] = []
    plain = Decoder.generate

    def counted(self: Decoder, batch: Any, *more: Any) -> Any:
        computed.extend(example.id for example in batch)
        return plain(self, batch, *more)

    monkeypatch.setattr(Decoder, "generate", counted)
    arms = ["seed", f"text:{SEEDS[0]}", "optimized", file, A]
    evaluate.run(evaluate_config(problem, tmp_path / "run", file, arms=arms, baseline=A))
    got = results(tmp_path / "run")
    assert len(computed) == 3 * got["num_examples"], "seed is its text, optimized is its file"
    assert got["arms"]["seed"] == got["arms"][f"text:{SEEDS[0]}"]
    assert got["arms"]["optimized"] == got["arms"][file]
    assert [c["candidate"] for c in got["comparisons"]] == arms[:-1]
    assert got["comparison"]["candidate"] == "optimized"
    assert got["comparison"]["baseline"] == A


def test_a_row_skipped_in_one_arm_is_skipped_in_all(problem: OptimizeConfig, tmp_path: Path) -> None:
    long = "text:" + "Please reason step by step. " * 65
    config = evaluate_config(problem, tmp_path, arms=["none", long], task__too_long="skip")
    evaluate.run(config)
    got = results(tmp_path)
    assert (got["num_examples"], got["num_skipped"]) == (9, 1)
    ids = {arm: [line["id"] for line in samples(tmp_path) if line["arm"] == arm] for arm in got["arms"]}
    assert ids["none"] == ids[long.strip()]
    assert "test:7" not in ids["none"]


def test_breakdowns_sum_to_the_whole(
    problem: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run(evaluate_config(problem, tmp_path, arms=["none", A], evaluation__breakdown=["level"]))
    got = results(tmp_path)
    parts = got["breakdowns"]["level"]
    assert list(parts) == ["Level 1", "Level 10"]
    assert sum(part["num_examples"] for part in parts.values()) == 10
    for arm in got["arms"]:
        assert sum(part["arms"][arm]["correct"] for part in parts.values()) == got["arms"][arm]["correct"]
    assert "by level" in capsys.readouterr().out


def test_several_samples(problem: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = {"generation__num_samples": 4, "generation__temperature": 1.0, "generation__top_p": 0.95}
    config = evaluate_config(problem, tmp_path, arms=["none", A], task__max_new_tokens=40, **drawn)
    evaluate.run(config)
    got, lines = results(tmp_path), samples(tmp_path)
    assert len(lines) == 2 * 10 * 4
    assert len({line["output"] for line in lines}) > 20
    for arm, summary in got["arms"].items():
        right: dict[str, list[bool]] = {}
        for line in lines:
            if line["arm"] == arm:
                right.setdefault(line["id"], []).append(line["correct"])
        counts = [sum(of_row) for of_row in right.values()]
        assert summary["samples"]["mean_accuracy"] == pytest.approx(sum(counts) / 40)
        assert list(summary["samples"]["pass_at_k"]) == ["1", "2", "4"]
        for k, value in summary["samples"]["pass_at_k"].items():
            assert value == pytest.approx(sum(pass_at_k(4, c, int(k)) for c in counts) / 10)
        assert summary["samples"]["majority_vote"] == summary["accuracy"]
    means = [summary["samples"]["mean_accuracy"] for summary in got["arms"].values()]
    assert got["comparisons"][0]["samples"]["difference"] == pytest.approx(means[1] - means[0])
    assert "4 answers to each question" in capsys.readouterr().out


def test_several_answers_to_a_single_question_have_no_error(problem: OptimizeConfig, tmp_path: Path) -> None:
    drawn = {"generation__num_samples": 2, "generation__temperature": 1.0, "task__split__num_test": 1}
    evaluate.run(evaluate_config(problem, tmp_path, arms=["none", A], **drawn))
    got = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    summary = got["arms"]["none"]["samples"]
    assert (summary["standard_error"], summary["ci95"]) == (None, [0.0, 1.0])
    assert got["comparisons"][0]["samples"]["standard_error"] is None


def test_strict_and_lenient_both_count(problem: OptimizeConfig, tmp_path: Path) -> None:
    evaluate.run(evaluate_config(problem, tmp_path, arms=["none"]))
    arm, lines = results(tmp_path)["arms"]["none"], samples(tmp_path)
    for extraction in ("strict", "lenient"):
        assert arm[extraction]["correct"] == sum(line[extraction]["correct"] for line in lines)
        assert arm[extraction]["invalid"] == sum(line[extraction]["extracted"] is None for line in lines)
    assert (arm["correct"], arm["invalid"]) == (arm["lenient"]["correct"], arm["lenient"]["invalid"])


def test_a_model_without_a_chat_template_has_one_bare_arm(problem: OptimizeConfig, tmp_path: Path) -> None:
    config = evaluate_config(problem, tmp_path, arms=["none", "bare"], model__template="plain")
    config.template = PLACEMENTS["after-query"]
    evaluate.run(config)
    none, bare = ([line["prompt_hash"] for line in samples(tmp_path) if line["arm"] == a] for a in ("none", "bare"))
    assert none == bare


def test_stop_strings_end_the_answers_of_every_arm(problem: OptimizeConfig, tmp_path: Path) -> None:
    drawn = {"generation__num_samples": 2, "generation__temperature": 1.0}
    make = lambda name, **more: evaluate_config(problem, tmp_path / name, arms=["none", "bare", A], **drawn, **more)  # noqa: E731
    evaluate.run(make("free"))
    letters = [letter for line in samples(tmp_path / "free") for letter in line["output"] if letter.isalpha()]
    stop = max(letters, key=letters.count)
    evaluate.run(make("stopped", task__stop=[stop]))
    pairs = list(zip(samples(tmp_path / "free"), samples(tmp_path / "stopped"), strict=True))
    assert any(stop in free["output"] for free, _ in pairs)
    for free, stopped in pairs:
        assert stopped["output"] == free["output"].partition(stop)[0]
        assert stopped["ending"] == ("stop" if stop in free["output"] else free["ending"])
        assert stopped["tokens"] <= free["tokens"]
    got, before = results(tmp_path / "stopped"), results(tmp_path / "free")
    assert (got["stop"], before.get("stop")) == ([stop], None)
    for name, arm in got["arms"].items():
        endings = [line["ending"] for line in samples(tmp_path / "stopped") if line["arm"] == name]
        assert arm["endings"] == {key: endings.count(key) for key in ("end_of_turn", "stop", "limit")}
        assert sum(arm["endings"].values()) == 20
        assert before["arms"][name]["endings"]["stop"] == 0


def test_validation_and_test_know_the_same_stop_strings(
    problem: OptimizeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    plain = Decoder.generate

    def noted(self: Decoder, batch: Any, max_new_tokens: int, at_once: int, sampling: Any, stop: Any) -> Any:
        given.append(stop)
        return plain(self, batch, max_new_tokens, at_once, sampling, stop)

    monkeypatch.setattr(Decoder, "generate", noted)
    problem.task.stop = ["#", "apples"]
    optimize.run(problem)
    assert len(given) == 2 + 3, "two validations, three arms"
    assert set(given) == {("#", "apples")}


def test_a_system_turn_of_the_template_is_named(
    problem: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Qwen2.5-Math's template has it: `none` is then told what the seed says."""
    words = "Please reason step by step."
    model = make_model()
    default = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + words + "<|im_end|>\n{% endif %}"
    model.tokenizer.chat_template = default + CHAT_TEMPLATE
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    problem.model.path = str(tmp_path / "model")
    optimize.run(problem)
    said = capsys.readouterr().out
    rendered = results(tmp_path / "trained")["rendered"]
    assert {name: row.get("added_system_turn") for name, row in rendered.items()} == {
        "none": words,
        "seed": None,
        "optimized": None,
    }
    assert rendered["none"]["text"].startswith(f"<|im_start|>system\n{words}<|im_end|>\n<|im_start|>user\nTom has")
    assert rendered["optimized"] == {**rendered["seed"], "vectors": len(model.tokenizer(words)["input_ids"])}
    assert f'under none: "{words}"' in said
    assert "under seed" not in said
    artifact = f"artifact={tmp_path / 'trained/prompt.safetensors'}"
    assert main(["export", artifact, "format=hub", f"output_dir={tmp_path / 'hub'}"]) == 0
    assert words in (tmp_path / "hub/README.md").read_text().partition("## Results")[2].partition("## Use")[0]
    assert main(["compare", str(tmp_path / "trained")]) == 0
    assert f"under none ({tmp_path / 'trained'}): '{words}'" in capsys.readouterr().err
