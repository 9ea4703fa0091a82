"""Runs with `objective=reward`: what they learn, leave behind, go on from, and refuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.commands.test_stop import GRADIENT, TOKEN, Place, assert_same, generation, metrics, signal_at, steps_done
from tests.conftest import SEEDS

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import ObjectiveConfig, OptimizeConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.plain import plain_logits
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.tasks.load import load
from embedgrad_cli.training.targets import rewards

# As text and as a number; what `broken` and `nan` do is to come in the second step, of rows 8 to 15 of an epoch.
FUNCTIONS = """
import math

calls = []


def letters(query: str, answer: str, target: str) -> float:
    return answer.count("e") - answer.count("o")


def word(query, answer, target):
    return answer.isalpha()


def same(query, answer, target):
    return 0.5


def late(answer, **others):
    calls.append(answer)
    return len(answer)


def broken(query, answer, target):
    calls.append(answer)
    if len(calls) > 8 * 3:
        raise KeyError("a word")
    return len(answer)


def nan(query, answer, target):
    return math.nan


def text(query, answer, target):
    return "1.0"


def nothing(query, answer, target):
    pass


def positional(a, b, c):
    return 1.0


number = 3
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working directory, of another name in every test; its functions are `NAME:…`."""
    name = f"rewards_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


def rewarded(output_dir: Path, model: Path, data: Path, function: str | None, **changes: Any) -> OptimizeConfig:
    """Three answers to each of 8 rows in a step."""
    objective = ObjectiveConfig("reward", 1.0, 0.0, samples=3, temperature=1.0, reward=function)
    return generation(output_dir, model, data, **{"objective": objective, "evaluation__batch_size": 24, **changes})


def steps(run: Path) -> list[dict[str, Any]]:
    return [row for row in metrics(run) if "loss" in row]


def probability_of_words(run: Path, model: LanguageModel, config: OptimizeConfig) -> tuple[float, float]:
    """Of an answer of one token: with the seed, and with the vectors after the last step; the mean over all rows."""
    template = PromptTemplate(config.template, SEEDS[:1], model.tokenizer, model.is_chat)
    encoded = encode(load(config.task, config.seed).train, template, model, append_end_token=True)
    seed = SoftPrompt.from_seed(encoded.slots, model)
    vectors = load_file(run / "checkpoint.safetensors")["vectors"]
    words = torch.tensor([model.tokenizer.decode([i]).strip().isalpha() for i in range(len(model.tokenizer))])

    def mean(prompt: SoftPrompt) -> float:
        last = [plain_logits(model, one.tokens, [len(one.tokens) - 1], prompt) for one in encoded.examples]
        return float(torch.cat(last).softmax(-1)[:, words].sum(1).mean())

    with torch.no_grad():
        return mean(seed), mean(SoftPrompt(encoded.slots, seed.seed, vectors))


def test_what_is_rewarded_becomes_likelier(
    tmp_path: Path, model: LanguageModel, model_folder: Path, choice_data: Path, functions: str
) -> None:
    more = {"train__batch_size": 24, "objective__samples": 32, "task__max_new_tokens": 1, "evaluation__batch_size": 999}
    more |= {"train__steps": 8, "train__eval_every": 8, "optimizer__schedule": "constant"}
    config = rewarded(tmp_path / "run", model_folder, choice_data, f"{functions}:word", **more)
    optimize.run(config)
    before, after = probability_of_words(tmp_path / "run", model, config)
    assert after > before + 0.02
    rewarded_first = steps(tmp_path / "run")[0]["reward"]
    assert rewarded_first == pytest.approx(before, abs=0.06), "768 draws of the seed's distribution"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> Iterator[Path]:
    """The run that nothing interrupts, by a function that outlives a test's."""
    folder = tmp_path_factory.mktemp("reward")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        (folder / "rewards_of_whole.py").write_text(FUNCTIONS)
        optimize.run(rewarded(folder / "whole", model_folder, choice_data, "rewards_of_whole:letters"))
        yield folder / "whole"


def test_two_runs_give_the_same_bytes(whole: Path, tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    optimize.run(rewarded(tmp_path / "again", model_folder, choice_data, "rewards_of_whole:letters"))
    assert_same(whole, tmp_path / "again")
    assert all(row["grad_norm"] > 0 for row in steps(whole))


@pytest.mark.parametrize(("place", "step"), [((*GRADIENT, 2), 1), ((*TOKEN, 20), 1)], ids=["gradient", "answers"])
def test_stopped_and_resumed_equals_uninterrupted(
    whole: Path,
    tmp_path: Path,
    model_folder: Path,
    choice_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Place,
    step: int,
) -> None:
    config = rewarded(tmp_path / "parts", model_folder, choice_data, "rewards_of_whole:letters")
    with monkeypatch.context() as patch:
        signal_at(place, patch)
        with pytest.raises(Stopped):
            optimize.run(config)
    assert steps_done(tmp_path / "parts") == step
    optimize.run(config)
    assert_same(whole, tmp_path / "parts")


@pytest.mark.parametrize("region", ["ball", "penalty"])
def test_rewards_that_agree_change_nothing_and_count_as_steps(
    tmp_path: Path, model_folder: Path, choice_data: Path, functions: str, region: str
) -> None:
    config = rewarded(tmp_path / "run", model_folder, choice_data, f"{functions}:same", trust_region__kind=region)
    optimize.run(config)
    found = steps(tmp_path / "run")
    assert [row["step"] for row in found] == [1, 2, 3]
    assert all(
        (row["loss"], row["grad_norm"], row["drift"], row["tokens"], row["reward"], row["rows_used"])
        == (0.0, 0.0, 0.0, 0, 0.5, 0.0)
        for row in found
    )
    left = load_file(tmp_path / "run/checkpoint.safetensors")
    assert not [name for name in left if name.startswith("optimizer")]
    assert torch.equal(left["vectors"], load_file(tmp_path / "run/prompt.safetensors")["seed_embedding"])


def test_a_step_without_a_lesson_leaves_the_moments_alone(
    tmp_path: Path, model_folder: Path, choice_data: Path, functions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Momentum would go on moving the prompt."""

    def in_the_first_step(*work: Any) -> Any:
        rewards_of = make_rewards(*work)
        steps_so_far: list[int] = []

        def rewards_or_none(rows: Any, texts: Any) -> Any:
            steps_so_far.append(1)
            return rewards_of(rows, texts) if len(steps_so_far) == 1 else [[1.0] * len(of_row) for of_row in texts]

        return rewards_or_none

    make_rewards = rewards.make_rewards
    monkeypatch.setattr("embedgrad_cli.training.targets.rollouts.make_rewards", in_the_first_step)
    kept = []
    for number in (1, 3):
        folder = tmp_path / str(number)
        more = {"train__steps": number, "optimizer__warmup_steps": 0, "optimizer__schedule": "constant"}
        optimize.run(rewarded(folder, model_folder, choice_data, f"{functions}:letters", **more))
        kept.append(load_file(folder / "checkpoint.safetensors"))
    assert [row["drift"] > 0 for row in steps(tmp_path / "3")] == [True] * 3
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0] if name != "best_vectors")


def test_the_task_s_grader_rewards_right_answers(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    """As the test grades: the share of right answers is the mean reward."""
    config = rewarded(tmp_path / "run", model_folder, choice_data, None)
    row = load(config.task, config.seed).train[0]
    graded = rewards.make_rewards(None, config.task)([row], [[row.target, "12345", "", f"#### {row.answer}"]])
    assert graded == [[1.0, 0.0, 0.0, 1.0]]
    optimize.run(config)
    assert all(row["reward"] * 24 == pytest.approx(round(row["reward"] * 24)) for row in steps(tmp_path / "run"))


def test_a_reward_that_raises_loses_nothing(
    tmp_path: Path, model_folder: Path, choice_data: Path, functions: str
) -> None:
    """No checkpoint was due before the end. Once the function is mended the run is the one without a fault."""
    name = f"{functions}:broken"
    config = rewarded(tmp_path / "parts", model_folder, choice_data, name)
    with pytest.raises(UserError) as raised:
        optimize.run(config)
    message = str(raised.value)
    assert raised.value.exit_code == 2
    for part in (f"objective.reward={name}", "train:", "KeyError", "a word", f"{functions}.py, line "):
        assert part in message
    assert "\n" not in message
    assert steps_done(tmp_path / "parts") == 1
    module = sys.modules[functions]
    module.broken = module.late  # type: ignore[attr-defined]
    optimize.run(config)
    optimize.run(rewarded(tmp_path / "whole", model_folder, choice_data, name))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


@pytest.mark.parametrize(("function", "found"), [("nan", "nan"), ("text", "'1.0'"), ("nothing", "None")])
def test_what_is_no_number_is_refused(
    tmp_path: Path, model_folder: Path, choice_data: Path, functions: str, function: str, found: str
) -> None:
    with pytest.raises(UserError, match=f"returned {found}") as raised:
        optimize.run(rewarded(tmp_path / "run", model_folder, choice_data, f"{functions}:{function}"))
    assert "row train:" in str(raised.value)
    assert steps_done(tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("no_such_module_here:f", "No module named"),
        ("{functions}:lettres", "letters, word, same"),
        ("{functions}:number", "no function number"),
        ("{functions}:positional", "query, answer and target by name"),
    ],
)
def test_a_function_that_is_none_is_found_before_the_model_is_loaded(
    functions: str, function: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(optimize, "load_model", None)
    name = function.format(functions=functions)
    assert main(["optimize", "objective=reward", f"objective.reward={name}", "output_dir=run"]) == 2
    error = capsys.readouterr().err
    assert f"objective.reward={name}" in error
    assert found in error
    assert not Path("run/config.yaml").exists()


def test_an_artifact_records_the_function_and_evaluates_without_it(
    tmp_path: Path, model_folder: Path, choice_data: Path, functions: str
) -> None:
    optimize.run(rewarded(tmp_path / "run", model_folder, choice_data, f"{functions}:letters"))
    (tmp_path / f"{functions}.py").write_text("raise RuntimeError('imported again')")
    sys.modules.pop(functions)
    assert main(["evaluate", "artifact=run/prompt.safetensors", "output_dir=out"]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["num_examples"] == 12
