"""A run goes on, or is finished, only for the rows, the rendering and the model that it began with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from tests.conftest import evaluate_config, optimize_config, samples

from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.storage.engine_record import EngineRecord
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.storage.interrupts import Stopped
from embedgrad_cli.storage.results_record import Results

Run = Callable[[], object]
DIGESTS = ("split", "rendering", "model", "prompts")


def rows_of(place: Path, split: str) -> list[Any]:
    return [json.loads(line) for line in (place / f"data/{split}.jsonl").read_text().splitlines()]


def write_rows(place: Path, split: str, rows: list[Any]) -> None:
    (place / f"data/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def turn_labels(place: Path) -> None:
    write_rows(place, "train", [{**row, "label": 1 - row["label"]} for row in rows_of(place, "train")])


def reorder(place: Path) -> None:
    """The same rows under the same ids, so that the hash of the splits is the same."""
    first, second, *others = rows_of(place, "validation")
    write_rows(place, "validation", [second, first, *others])


def reword(place: Path) -> None:
    first, *others = rows_of(place, "test")
    write_rows(place, "test", [{**first, "text": "pages that were not there"}, *others])


def write_date(place: Path) -> None:
    file = place / "model/chat_template.jinja"
    file.write_text("Today is Friday.\n" + file.read_text())


def change_a_weight(place: Path) -> None:
    file = place / "model/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 64  # a bit of a number's fraction
    file.write_bytes(content)


CHANGES = [(turn_labels, "split"), (reorder, "split"), (reword, "split"), (write_date, "rendering")]
CHANGES += [(change_a_weight, "model")]


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, choice_data: Path) -> Path:
    """A model and data that a test may change."""
    shutil.copytree(model_folder, tmp_path / "model")
    shutil.copytree(choice_data, tmp_path / "data")
    return tmp_path


def signal_at(owner: type, name: str, number: int, patch: pytest.MonkeyPatch) -> None:
    method, calls = getattr(owner, name), []

    def signalling(self: Any, *arguments: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return method(self, *arguments)

    patch.setattr(owner, name, signalling)


def optimize_at(place: Path) -> Run:
    return lambda: optimize.run(optimize_config(place / "run", place / "model", place / "data", train__steps=3))


def evaluate_at(place: Path, **changes: Any) -> Run:
    like = optimize_config(place / "unused", place / "model", place / "data")
    return lambda: evaluate.run(evaluate_config(like, place / "run", **{"arms": ["none", "seed"], **changes}))


def stopped(run: Run, owner: type, name: str, number: int) -> Run:
    """Begin it, and stop it within a method."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at(owner, name, number, patch)
        with pytest.raises(Stopped):
            run()
    return run


def finished(run: Run) -> Run:
    run()
    return run


STATES: dict[str, Callable[[Path], Run]] = {
    "optimize-stopped": lambda place: stopped(optimize_at(place), Forward, "_accumulate", 3),
    "optimize-finished": lambda place: finished(optimize_at(place)),
    "evaluate-stopped": lambda place: stopped(evaluate_at(place), AnswerLog, "add", 2),
    "evaluate-predicted": lambda place: finished(evaluate_at(place, mode="predict-only")),
    "evaluate-finished": lambda place: finished(evaluate_at(place)),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("change", "differs"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("state", STATES)
def test_something_else_is_refused(place: Path, state: str, change: Callable[[Path], None], differs: str) -> None:
    again = STATES[state](place)
    before = contents(place / "run")
    change(place)
    with pytest.raises(UserError) as caught:
        again()
    assert caught.value.exit_code == 2
    assert [name for name in ("split", "rendering", "model", "prompts") if f"{name}: " in str(caught.value)] == [
        differs
    ]
    assert contents(place / "run") == before


def test_without_its_checkpoint_a_run_begins_anew(place: Path) -> None:
    again = stopped(optimize_at(place), AnswerLog, "add", 4)
    assert (place / "run/answers.partial.jsonl").exists()
    (place / "run/checkpoint.safetensors").unlink()
    change_a_weight(place)
    again()
    (place / "run").rename(place / "anew")
    again()
    results = [json.loads((place / name / "results.json").read_text()) for name in ("anew", "run")]
    assert results[0]["digests"] == results[1]["digests"]
    assert samples(place / "anew") == samples(place / "run"), "no answer of the other model's"


def test_another_prompt_in_the_file_is_refused(place: Path) -> None:
    prompt = place / "prompt.safetensors"
    for lr in (0.1, 0.2):
        optimize.run(
            optimize_config(place / f"{lr}", place / "model", place / "data", train__steps=2, optimizer__lr=lr)
        )
    shutil.copy(place / "0.1/prompt.safetensors", prompt)
    again = finished(evaluate_at(place, artifact=str(prompt), arms=["seed", "optimized"]))
    again()
    shutil.copy(place / "0.2/prompt.safetensors", prompt)
    with pytest.raises(UserError, match="prompts: "):
        again()


def forget_digests(run: Path) -> None:
    """Leave a run as earlier versions left it."""
    (run / "digests.json").unlink(missing_ok=True)
    file = run / "checkpoint.safetensors"
    if file.exists():
        with safe_open(file, framework="pt") as content:
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - not a dict
            state = json.loads(content.metadata()["embedgrad_checkpoint"])
        for key in ("digests", "validation_due", "accuracy"):
            state.pop(key, None)
        save_file(tensors, file, {"embedgrad_checkpoint": json.dumps(state)})
    if (run / "results.json").exists():
        results = json.loads((run / "results.json").read_text())
        del results["digests"]
        (run / "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize("state", STATES)
def test_what_was_not_recorded_is_not_checked(place: Path, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    again = STATES[state](place)
    forget_digests(place / "run")
    turn_labels(place)
    capsys.readouterr()
    again()
    errors = capsys.readouterr().err
    assert errors.count("cannot be checked") == 1
    if state != "evaluate-predicted":
        assert Results.read(place / "run/results.json").digests is None, "nobody knows what all of it was made with"


def test_grading_again_keeps_the_digests_and_the_engine(place: Path) -> None:
    finished(evaluate_at(place))
    before = Results.read(place / "run/results.json")
    assert before.digests is not None
    engine = EngineRecord(name="vllm", version="0.1")
    write_json(place / "run/results.json", replace(before, engine=engine))
    finished(evaluate_at(place, mode="regrade", task__extraction="strict"))
    after = Results.read(place / "run/results.json")
    assert (after.digests, after.engine) == (before.digests, engine)
