from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import PLACEMENTS, SEEDS, evaluate_config, make_model, optimize_config, samples

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import EvaluateConfig, Message, OptimizeConfig, SeedConfig, TemplateConfig
from embedgrad_cli.errors import ArtifactError, UserError
from embedgrad_cli.evaluation import saved_prompts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> OptimizeConfig:
    config = optimize_config(tmp_path_factory.mktemp("trained"), model_folder, choice_data)
    optimize.run(config)
    return config


def evaluation(trained: OptimizeConfig, output_dir: Path, **changes: object) -> EvaluateConfig:
    return evaluate_config(trained, output_dir, str(Path(trained.output_dir) / "prompt.safetensors"), **changes)


def test_evaluate_repeats_what_optimize_measured(trained: OptimizeConfig, tmp_path: Path) -> None:
    accuracy = evaluate.run(evaluation(trained, tmp_path))
    measured = json.loads((Path(trained.output_dir) / "results.json").read_text())
    again = json.loads((tmp_path / "results.json").read_text())
    for key in ("arms", "comparison", "comparisons", "test_hash", "drift", "elsewhere"):
        assert again[key] == measured[key], key
    assert measured["elsewhere"]["kl"] > 0
    assert accuracy == measured["arms"]["optimized"]["accuracy"]
    assert samples(Path(trained.output_dir)) == samples(tmp_path)
    evaluate.run(evaluation(trained, tmp_path, mode="regrade", baseline="none"))
    graded_again = json.loads((tmp_path / "results.json").read_text())
    assert graded_again["comparison"]["baseline"] == "none"
    assert [graded_again[key] for key in ("drift", "elsewhere")] == [measured["drift"], measured["elsewhere"]]


def test_another_model_is_refused_with_both_names(trained: OptimizeConfig, tmp_path: Path) -> None:
    other = make_model("llama")
    other.network.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    config = evaluation(trained, tmp_path / "run")
    config.model = type(config.model)(**{**vars(config.model), "path": str(tmp_path / "other")})
    with pytest.raises(ArtifactError) as caught:
        evaluate.run(config)
    assert trained.model.path in str(caught.value)
    assert config.model.path in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_same_shape_with_other_weights_is_refused(trained: OptimizeConfig, tmp_path: Path) -> None:
    other = make_model("qwen2")
    other.network.get_input_embeddings().weight.mul_(1.5)
    other.network.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    config = evaluation(trained, tmp_path / "run")
    config.model = type(config.model)(**{**vars(config.model), "path": str(tmp_path / "other")})
    with pytest.raises(ArtifactError, match="embedding rows"):
        evaluate.run(config)


def test_another_precision_is_the_same_model(trained: OptimizeConfig, tmp_path: Path) -> None:
    config = evaluation(trained, tmp_path)
    config.model = type(config.model)(**{**vars(config.model), "dtype": "bfloat16"})
    assert 0 <= evaluate.run(config) <= 1


def test_another_template_is_fine_while_the_slot_keeps_its_tokens(trained: OptimizeConfig, tmp_path: Path) -> None:
    assert 0 <= evaluate.run(evaluation(trained, tmp_path / "a", template=PLACEMENTS["after-query"])) <= 1
    with pytest.raises(ArtifactError, match="slots hold"):
        evaluate.run(evaluation(trained, tmp_path / "b", prompt=SeedConfig(SEEDS[1])))


def test_a_warning_compares_the_template_in_use_with_that_of_training(
    tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    """Worked examples included; a plain text that a chat does not read makes no difference."""
    config = optimize_config(tmp_path / "trained", model_folder, choice_data, task__fewshot=2, train__steps=1)
    optimize.run(config)
    messages, text = vars(PLACEMENTS["system"]).values()
    cases: list[tuple[bool, dict[str, object]]] = [
        (False, {}),
        (False, {"template": TemplateConfig(messages, "Another text: {prompt}\n{query}\n")}),
        (True, {"template": TemplateConfig([messages[0], Message("user", "Read: {query}")], text)}),
        (True, {"task__fewshot": 0}),
        (True, {"model__template": "plain"}),
    ]
    for number, (warns, changes) in enumerate(cases):
        run = tmp_path / str(number)
        evaluate.run(evaluation(config, run, arms=["optimized"], task__overlap="allow", **changes))
        assert (f"WARNING {saved_prompts.__name__}:" in (run / "embedgrad.log").read_text()) == warns, changes


def test_results_of_another_run_are_not_written_over(trained: OptimizeConfig, tmp_path: Path) -> None:
    before = (Path(trained.output_dir) / "results.json").read_bytes()
    with pytest.raises(UserError, match="holds an optimisation, and an evaluation needs a folder"):
        evaluate.run(evaluation(trained, Path(trained.output_dir)))
    assert (Path(trained.output_dir) / "results.json").read_bytes() == before


def test_a_finished_evaluation_changes_nothing(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = evaluate.run(evaluation(trained, tmp_path))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert evaluate.run(evaluation(trained, tmp_path)) == accuracy
    assert "finished; nothing was changed" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match=r"split=validation \(was test\)"):
        evaluate.run(evaluation(trained, tmp_path, split="validation"))


def test_export_writes_the_vectors_and_says_what_exists(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    artifact = Path(trained.output_dir) / "prompt.safetensors"
    line = ["export", f"artifact={artifact}", "format=embeds", f"output_dir={tmp_path}/out"]
    assert main(line) == 0
    vectors = load_file(tmp_path / "out/prompt_embeds.safetensors")
    assert vectors["prompt_embeds.0"].equal(load_file(artifact)["soft_prompt"])
    description = json.loads((tmp_path / "out/prompt_embeds.json").read_text())
    assert description["seed_text"] == SEEDS[0]
    assert main(line) == 2
    assert "not an empty folder" in capsys.readouterr().err
