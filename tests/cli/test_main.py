"""The command line from outside: help, exit codes, plain errors, sweeps."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.artifacts import plain_metadata, write_header

from embedgrad_cli import __version__
from embedgrad_cli.cli import hydra_job
from embedgrad_cli.cli import main as cli
from embedgrad_cli.errors import ConfigError, DataError, EmbedgradError
from embedgrad_cli.storage.interrupts import Stopped

Received = list[Any]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Received:
    """Stands in for the subcommands: collects the configs they are called with. Runs in an empty folder."""
    configs: Received = []

    def run(config: Any, overrides: list[str], on_validation: Any = None) -> float:
        configs.append(config)
        return 0.5

    monkeypatch.setattr(hydra_job, "run_job", run)
    monkeypatch.chdir(tmp_path)
    return configs


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(config: Any, overrides: list[str], on_validation: Any = None) -> float:
        raise error

    monkeypatch.setattr(hydra_job, "run_job", run)


def run_process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from embedgrad_cli.cli.main import main; code = main(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'transformers', 'hydra'} & set(sys.modules))); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact of a run on a task of the user's own."""
    task = {
        "name": "mine",
        "kind": "choice",
        "data_dir": "embedded:word-problems",
        "hub": {"path": None, "name": None, "revision": None},
        "field": None,
        "query": "{q}",
        "target": "{a}",
        "remove": None,
        "labels": {"0": "bad", "1": "good"},
        "choices": ["bad", "good"],
        "grader": "label",
        "split": {"train": ["train"], "validation": None, "test": None}
        | {"num_train": None, "num_validation": 5, "num_test": 5},
        "max_new_tokens": 4,
        "too_long": "skip",
    }
    model = {"path": "embedded:tiny", "revision": None, "dtype": "float32", "template": "chat"}
    config = {
        "seed": 7,
        "model": model | {"trust_remote_code": False},
        "template": {"messages": [{"role": "user", "content": "{query}{prompt}"}], "text": "{query}{prompt}"},
        "prompt": {"text": "Think."},
        "task": task,
        "optimizer": {"name": "adamw", "lr": 0.1},
        "train": {"steps": 3, "batch_size": 4},
    }
    return write_header(tmp_path / "prompt.safetensors", plain_metadata(config=config))


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_overview(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert sum(line.startswith("  embedgrad ") and "artifact=" in line for line in text.splitlines()) == 2
    assert all(f"\n  {command} " in text for command in cli.COMMANDS)


def test_an_encoding_that_lacks_a_character_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert cli.main(["optimize", "--help"]) == 0
    sys.stdout.flush()
    assert rb"{prompt.0}, {prompt.1}, \u2026" in written.getvalue()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"embedgrad {__version__}\n"


def test_help_of_optimize_lists_groups_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "task=sst2", "--help"]) == 0
    text = capsys.readouterr().out
    assert "*sst2" in text
    assert "smollm2-360m-instruct" in text
    assert "train.steps=200" in text
    assert "optimiser steps" in text
    assert "task.choices=[negative, positive]" in text


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_help_of_the_other_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert {"evaluate": "artifact=null", "export": "artifact=???"}[command] in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_a_command_says_what_its_module_says(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"embedgrad_cli.commands.{command}")
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: embedgrad {command} " in text
    assert f"examples:\n  embedgrad {command}" in text
    assert all(line in text for line in module.__doc__.splitlines())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("optimise", "optimize"),
        ("task=sst2", "'task=sst2'"),
        ("optimize --multirum", "--multirum"),
        ("optimize --experimental-rerun x", "--experimental-rerun"),
        ("optimize --config-dir nowhere", "'nowhere'"),
        ("optimize task=gsm9k", "task=gsm8k"),
        ("optimize task=data/mine", "task.data_dir=data/mine"),
        ("optimize model=Some/Name", "model=local model.path=Some/Name"),
        ("optimize sst2", "task=sst2"),
        ("optimize optimizer.learnrate=1", "optimizer.learnrate:"),
        ("optimize lr=1", "optimizer.lr"),
        ("optimize trian.steps=1", "train.steps"),
        ("optimize model.name=qwen2.5-7b", "model=qwen2.5-7b"),
        ("optimize model.path=qwen2.5-7b", "model=qwen2.5-7b"),
        ("optimize +extra=1", "extra:"),
        ("optimize ~train.steps", "train.steps:"),
        ("optimize optimizer.lr=-1", "optimizer.lr: -1"),
        ("optimize train.steps=1,2", "--multirun"),
        ("optimize prompt.text=Why(now", "'prompt.text=\"Why(now\"'"),
        ("optimize -m --cfg job train.steps=1,2", "--cfg"),
        ("optimize experiment=lab/review", "experiment=lab/reviews"),
        ("optimize -m task=sst2,sst3", "'sst3'"),
        ("optimize model=local model.path=./nowhere", "model.path:"),
        ("optimize task.data_dir=nowhere", "task.data_dir: 'nowhere'"),
        ("optimize task.kind=choice", "task.choices:"),
        ("optimize template.text=hello", "template.text:"),
        ("evaluate", "artifact:"),
        ("evaluate artifact=nowhere", "artifact=nowhere"),
        ("evaluate artifact=nowhere optimizer=sgd", "optimizer:"),
        ("export artifact=nowhere format=pfet", "format: 'pfet'"),
    ],
)
def test_wrong_input_is_one_plain_message(
    line: str, words: str, received: Received, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("embedgrad: ")
    assert "Traceback" not in captured.err
    assert received == []
    assert list(Path.cwd().iterdir()) == [], "wrong input must leave no trace"


def test_all_problems_are_printed_together(received: Received, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "task=x", "optimizer.lr=-1", "train.stepz=3", "device=gpu", "nonsense"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("embedgrad: 5 problems:\n  - ")
    assert all(word in text for word in ("'x'", "optimizer.lr", "train.steps", "device", "'nonsense'"))


def test_a_text_that_was_refused_is_not_missing_too(received: Received, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "prompt=custom", "prompt.text=First, think."]) == 2
    text = capsys.readouterr().err
    assert "--multirun" in text
    assert "has no value" not in text


def test_optimize_gets_its_config(received: Received) -> None:
    line = ["optimize", "seed=3", "task=gsm8k", "train.steps=1e1", "prompt.text='Think, then answer: (a) or (b)?'"]

    assert cli.main(line) == 0

    (config,) = received
    assert (config.seed, config.task.name, config.train.steps) == (3, "gsm8k", 10)
    assert config.prompt.text == "Think, then answer: (a) or (b)?"
    assert config.output_dir.startswith("outputs/optimize/2")
    assert list(Path.cwd().iterdir()) == [], "only the subcommand itself writes"


def test_flags_and_overrides_in_any_order(received: Received, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "seed=1,2", "--multirun", "output_dir=sweep", "train.steps=5"]) == 0

    assert capsys.readouterr().out.endswith("All runs in one table: embedgrad compare sweep\n")

    assert [(c.seed, c.train.steps) for c in received] == [(1, 5), (2, 5)]
    assert [Path(c.output_dir).relative_to(Path.cwd()).as_posix() for c in received] == ["sweep/0", "sweep/1"]


def test_own_configs(received: Received, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "task").mkdir(parents=True)
    (own / "experiment").mkdir()
    task = {"name": "mine", "kind": "choice", "data_dir": str(tmp_path), "query": "{q}", "target": "{a}"}
    (own / "task" / "mine.yaml").write_text(
        yaml.safe_dump(task | {"choices": ["a", "b"], "split": {"num_validation": 5}})
    )
    (own / "experiment" / "quick.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /task: mine\ntrain:\n  steps: 3\n"
    )

    assert cli.main(["optimize", "--config-dir", str(own), "experiment=quick"]) == 0

    assert (received[0].task.name, received[0].train.steps) == ("mine", 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: mine\nkind: chioce\n", "task.kind: 'chioce' is not one of choice, generation; did you mean choice"),
        ("name: mine\nquestion: x\n", "task.question: there is no such setting"),
        ("name: [mine\n", "the configs do not compose"),
    ],
)
def test_mistakes_in_own_configs(
    content: str, words: str, received: Received, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(content)

    assert cli.main(["optimize", "--config-dir", str(tmp_path), "task=mine"]) == 2
    text = capsys.readouterr().err
    assert words in text
    assert "Traceback" not in text


def test_evaluate_takes_the_artifacts_own_settings(received: Received, artifact: Path) -> None:
    assert cli.main(["evaluate", f"artifact={artifact}"]) == 0

    (config,) = received
    assert (config.seed, config.task.name, config.task.too_long, config.prompt.text) == (7, "mine", "skip", "Think.")
    assert (config.model.path, config.model.template, config.split) == ("embedded:tiny", "chat", "test")


def test_evaluate_replaces_what_is_named(received: Received, artifact: Path) -> None:
    line = ["model.dtype=bfloat16", "task.split.num_test=9", "task.labels=null", "seed=1"]

    assert cli.main(["evaluate", f"artifact={artifact}", *line[:2]]) == 0
    assert cli.main(["evaluate", f"artifact={artifact}", *line[2:]]) == 0

    first, second = received
    assert (first.model.dtype, first.model.template, first.task.split.num_test) == ("bfloat16", "chat", 9)
    assert (first.task.split.num_validation, first.task.labels) == (5, {"0": "bad", "1": "good"})
    assert (second.task.labels, second.seed) == (None, 1)


def test_evaluate_replaces_a_group_as_a_whole(received: Received, artifact: Path, tmp_path: Path) -> None:
    line = ["evaluate", f"artifact={artifact}", "task=gsm8k", f"task.data_dir={tmp_path}"]

    assert cli.main(line) == 0

    (config,) = received
    assert (config.task.name, config.task.data_dir, config.task.labels) == ("gsm8k", str(tmp_path), None)
    assert (config.task.too_long, config.seed, config.model.template) == ("error", 7, "chat")


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("row 3 is odd."), 2), (EmbedgradError("out of memory."), 1), (KeyboardInterrupt(), 130)],
)
def test_failures_have_their_exit_code(
    error: BaseException,
    code: int,
    received: Received,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(monkeypatch, error)

    assert cli.main(["optimize", "output_dir=out"]) == code
    assert capsys.readouterr().err == f"embedgrad: {str(error) or 'interrupted.'}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("made", [ConfigError(["the configs do not compose."]), AttributeError("'NoneType'")])
def test_an_interrupt_stays_one_whatever_a_library_makes_of_it(
    number: signal.Signals, made: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        raise made

    monkeypatch.setattr(cli, "_dispatch", interrupted)
    pythons = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, pythons)  # a shell's background programs ignore SIGINT
    try:
        assert cli.main(["optimize"]) == 130
        assert capsys.readouterr().err == "embedgrad: interrupted.\n"
        assert signal.getsignal(number) == pythons
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_an_error_is_told_is_an_interrupt(number: signal.Signals, tmp_path: Path) -> None:
    """A SIGTERM there ended the command by itself, without a word."""
    code = (
        "import os, signal, sys; from embedgrad_cli.cli import main as cli; say = cli._say\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell turns off in the background
        f"def told(message):\n  cli._say = say; os.kill(os.getpid(), {int(number)})\n"
        "cli._say = told; sys.exit(cli.main(['optimise']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "embedgrad: interrupted.\n")


def test_a_stopped_job_stops_the_sweep(
    received: Received, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, Stopped("after step 3", Path("sweep/0")))

    assert cli.main(["optimize", "-m", "seed=1,2", "output_dir=sweep"]) == 130
    captured = capsys.readouterr()
    assert "stopped after step 3" in captured.err
    assert captured.out.count("job ") == 1


def test_a_bug_is_not_hidden(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        cli.main(["optimize"])


def test_cfg_prints_an_incomplete_config(received: Received, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["optimize", "model=local", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["path"] == "???"
    assert cli.main(["optimize", "--cfg", "job", "train.step=1"]) == 2
    assert received == []


def test_info(tmp_path: Path) -> None:
    done = run_process("optimize", "--info", "defaults", cwd=tmp_path)  # Hydra's log stays at debug afterwards
    assert done.returncode == 0
    assert "task/word-problems" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "loaded"),
    [
        (["--help"], 0, []),
        (["optimize", "--help"], 0, ["hydra"]),
        (["evaluate", "--help"], 0, ["hydra"]),
        (["export", "--help"], 0, ["hydra"]),
        (["inspect", "--help"], 0, []),
        (["compare", "--help"], 0, []),
        (["tasks", "show", "--help"], 0, ["hydra"]),
        (["optimize", "model.typo=1", "optimizer.lr=-1"], 2, ["hydra"]),
        (["evaluate", "artifact=nowhere"], 2, ["hydra"]),
        (["nonsense"], 2, []),
    ],
)
def test_nothing_heavy_is_loaded(arguments: list[str], code: int, loaded: list[str], tmp_path: Path) -> None:
    done = run_process(*arguments, cwd=tmp_path)

    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == f"heavy: {loaded}"


@pytest.mark.parametrize("command", ["optimize", "evaluate"])
def test_quiet_is_a_setting_that_changes_no_result(command: str, received: Received) -> None:
    words = ["model=tiny", "template=system", "task=word-problems"] + ["arms=[none]"] * (command == "evaluate")
    assert cli.main([command, "--quiet", *words]) == 0
    assert received[0].quiet
