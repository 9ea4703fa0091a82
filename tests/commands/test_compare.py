"""`embedgrad compare` on hand-made run directories of the real shape, and on a real sweep."""

from __future__ import annotations

import copy
import csv
import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.comparison.run_files import Capture, Records, summary, write_run
from tests.conftest import PLACEMENTS

from embedgrad_cli.cli import main as cli

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_only_settings_that_differ_are_shown_by_their_shortest_name(capsys: Capture, records: Records) -> None:
    write_run(Path("s/0"), 6, template=asdict(PLACEMENTS["after-query"]), optimizer__lr=0.5)
    write_run(Path("s/1"), 7, optimizer__name="sgd", trust_region__radius=0.25)

    shown = records("s")
    assert [key for key in shown[0] if key.startswith("config.")] == [
        "config.optimizer.lr", "config.optimizer.name", "config.template", "config.trust_region.radius",
    ]  # fmt: skip
    assert (shown[0]["config.template"], shown[0]["config.trust_region.radius"]) == ("system", 0.25)
    assert (shown[1]["config.template"], shown[1]["config.trust_region.radius"]) == ("after-query", 0.5)

    assert cli.main(["compare", "s", "--format", "md"]) == 0
    header = capsys.readouterr().out.splitlines()[2]
    assert header.startswith("| run | lr | optimizer.name | template | radius | validation (%) | none (%) | seed (%) |")
    assert header.endswith("| difference (points) | wins, losses | p (Holm) | n | drift | nearest kept |")


def test_a_setting_without_effect_is_not_shown(records: Records) -> None:
    write_run(Path("s/0"), trust_region__kind="none", trust_region__radius=0.25)
    write_run(Path("s/1"), trust_region__weight=2.0)
    write_run(Path("s/2"), trust_region__radius=0.1)

    by_run = {one["run"].rsplit("/")[-1]: one for one in records("s")}
    assert by_run["0"]["config.trust_region.kind"] == "none"
    assert [by_run[run].get("config.trust_region.radius") for run in "012"] == [None, 0.5, 0.1]
    assert not any("config.trust_region.weight" in one for one in by_run.values())


def test_a_template_of_the_users_own_is_shown_by_its_content(records: Records) -> None:
    own = {"messages": [{"role": "user", "content": "{query} {prompt}"}], "text": "{query} {prompt}\n"}
    write_run(Path("0"), template=own)
    write_run(Path("1"), template=copy.deepcopy(own) | {"text": "{prompt} {query}"})
    assert len({one["config.template"] for one in records(".")}) == 2
    assert records(".")[0]["config.template"].startswith("user: {query} {prompt} · text: ")


def test_long_values_are_cut_only_while_they_differ(capsys: Capture) -> None:
    long = "Please reason step by step, and think about every word of the question."
    for number, text in enumerate([long, f"Now {long}", "Think.\nAnswer."]):
        write_run(Path(f"a/{number}"), prompt__text=text)
    write_run(Path("a/3"), optimizer__betas=[0.8, 0.9])
    for number, ending in enumerate("?!"):
        write_run(Path(f"b/{number}"), prompt__text=long + ending)

    assert cli.main(["compare", "a", "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert f"{long[:39]}…" in text
    assert "Think.\\nAnswer." in text
    assert "[0.8, 0.9]" in text
    assert cli.main(["compare", "b", "--format", "md"]) == 0
    text = capsys.readouterr().out
    assert all(long + ending in text for ending in "?!")


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (["--sort", "lr"], "b a c"),
        (["--sort", "-lr"], "c a b"),
        (["--sort=-optimizer.lr"], "c a b"),
        (["--sort", "config.optimizer.lr"], "b a c"),
        (["--sort", "run"], "a b c"),
        (["--sort", "-run"], "c b a"),
        (["--sort", "optimized"], "c a b"),
        (["--sort", "-difference"], "b a c"),
        (["--sort", "p"], "b a c"),
        (["--sort", "steps"], "a b c"),  # the same in all
        (["--sort", "candidate"], "c a b"),
    ],
)
def test_sort(sort: list[str], order: str, records: Records) -> None:
    write_run(Path("s/a"), 7, optimizer__lr=0.1)
    write_run(Path("s/b"), 8, optimizer__lr=0.05)
    write_run(Path("s/c"), 3, optimizer__lr=1.0)
    assert [one["run"] for one in records("s", *sort)] == [f"s/{name}" for name in order.split()]


def test_runs_without_a_value_are_last_both_ways(records: Records) -> None:
    without = summary([True] * 10, [True] * 10, "t")
    del without["drift"]
    write_run(Path("s/a"), results=without)
    write_run(Path("s/b"))
    for sort in ("drift", "-drift"):
        assert [one["run"] for one in records("s", "--sort", sort)] == ["s/b", "s/a"]


def test_what_changed_elsewhere_is_a_column_and_a_key(capsys: Capture, records: Records) -> None:
    for number, kl in enumerate((0.25, 0.125)):
        answers = [True] * (5 + number) + [False] * (5 - number)
        found = {"kl": kl, "first_token_kl": 1.0, "same_token": 0.5, "num_requests": 2, "num_tokens": 9}
        found["by_request"] = {"a": kl, "b": kl}  # type: ignore[assignment]
        results = summary([True] * 2 + [False] * 8, answers, "t", elsewhere=found)
        write_run(Path(f"s/{number}"), results=results, optimizer__lr=number + 1)
    shown = records("s", "--sort", "elsewhere")
    assert [(one["run"], one["elsewhere.kl"], one["elsewhere.same_token"]) for one in shown] == [
        ("s/1", 0.125, 0.5),
        ("s/0", 0.25, 0.5),
    ]
    assert cli.main(["compare", "s", "--format", "md", "--sort", "lr"]) == 0
    header, _, first, second = (
        [cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "|" in line
    )
    assert [row[header.index("elsewhere (KL)")] for row in (first, second)] == ["0.250", "0.125"]
    assert [row[header.index("wins, losses")] for row in (first, second)] == ["3, 0", "4, 0"]


def test_numbers_are_exactly_those_of_the_results(capsys: Capture) -> None:
    path = write_run(Path("s/0"), 7)
    write_run(Path("s/1"), 6, optimizer__lr=0.2)
    results = json.loads((path / "results.json").read_text())

    assert cli.main(["compare", "s", "--format", "csv"]) == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))

    assert list(first) == list(second)
    assert float(first["arms.optimized.accuracy"]) == results["arms"]["optimized"]["accuracy"]
    assert [float(first[f"comparison.ci95.{end}"]) for end in ("low", "high")] == results["comparison"]["ci95"]
    assert float(first["comparison.mcnemar_p"]) == results["comparison"]["mcnemar_p"]
    assert (first["num_examples"], first["drift.nearest_kept"], first["drift.num_tokens"]) == ("10", "5", "6")
    assert (first["config.optimizer.lr"], second["config.optimizer.lr"]) == ("0.1", "0.2")


def test_the_table_is_whole_where_there_is_no_terminal(capsys: Capture) -> None:
    write_run(Path("s/0"), 7, prompt__text="Please [bold] reason about it step by step, and then answer.")
    write_run(Path("s/1"), 6, optimizer__lr=0.2)
    assert cli.main(["compare", "s"]) == 0
    title, *lines, _ = capsys.readouterr().out.splitlines()
    assert title == "words · test split, 10 examples · test set t"
    assert len({len(line) for line in lines}) == 1
    assert "Please [bold] reason about it" in lines[3]
    assert "70.0 (39.7 to 89.2)" in lines[3]
    assert "+50.0" in lines[3]


def test_unfinished_runs_are_named_and_left_out(capsys: Capture, records: Records) -> None:
    write_run(Path("s/0"))
    for number in (2, 10):
        (write_run(Path(f"s/{number}")) / "results.json").unlink()
    assert cli.main(["compare", "s", "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "embedgrad: not finished and left out: s/2, s/10\n"
    assert [one["run"] for one in json.loads(captured.out)] == ["s/0"]


def test_a_run_named_twice_is_one(records: Records) -> None:
    write_run(Path("s/0"))
    assert len(records("s", "s/0", str(Path("s").absolute()))) == 1


def test_different_test_sets_are_refused_unless_asked_for(capsys: Capture, records: Records) -> None:
    write_run(Path("s/0"), 5, "first", task__name="x")
    write_run(Path("s/1"), 7, "second", task__name="y")
    write_run(Path("s/2"), 6, "first", task__name="x", optimizer__lr=0.5)

    assert cli.main(["compare", "s"]) == 2
    text = capsys.readouterr().err
    assert "test set first: s/0, s/2; words" in text
    assert "test set second: s/1." in text
    assert "--mixed" in text

    assert [one["run"] for one in records("s", "--mixed")] == ["s/2", "s/0", "s/1"]
    assert cli.main(["compare", "s", "--mixed", "--format", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[-10:] for line in lines if " · test set " in line] == [" set first", "set second"]
    assert [line for line in lines if line.startswith("| run")] == [lines[2]] * 2
    assert "task.name" not in lines[2], "the titles name the task"


def test_runs_of_versions_without_a_test_hash_go_by_the_splits(records: Records, capsys: Capture) -> None:
    old = summary([True] * 10, [True] * 10, "t")
    del old["test_hash"]
    write_run(Path("s/0"), results=old)
    write_run(Path("s/1"), results=old, optimizer__lr=0.5)
    assert len(records("s")) == 2
    write_run(Path("s/2"), results=old | {"split_hash": "another"})
    assert cli.main(["compare", "s"]) == 2


def test_optimize_and_evaluate_side_by_side(records: Records) -> None:
    write_run(Path("s/0"), 7)
    path = write_run(Path("s/1"), 6, evaluation__batch_size=2)
    config = yaml.safe_load((path / "config.yaml").read_text())
    for part in ("optimizer", "trust_region", "train"):
        del config[part]
    (path / "config.yaml").write_text(yaml.safe_dump(config | {"artifact": "x", "split": "test"}))
    shown = records("s")
    assert [key for key in shown[0] if key.startswith("config.")] == ["config.evaluation.batch_size"]
    assert records("s", "--sort", "lr")[-1]["run"] == "s/1", "it has no learning rate"


def broken(**changes: Any) -> dict[str, Any]:
    content = summary([True] * 5 + [False] * 5, [True] * 8 + [False] * 2, "t")
    for key, value in changes.items():
        *parts, name = key.split("__")
        part = content
        for one in parts:
            part = part[one]
        part[name] = value
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"task": ', "results.json"),
        ("[]", "[]"),
        ({}, "task"),
        (broken(arms={}), "seed"),
        (broken(comparison=None), "comparison"),
        (broken(num_examples="10"), "num_examples"),
        (broken(arms__none__ci95=[0.1]), "arms.none.ci95"),
        (broken(comparison__wins=9), "9 wins"),
        (broken(num_examples=7), "8 correct of 7"),
    ],
)
def test_broken_results(content: Any, words: str, capsys: Capture) -> None:
    write_run(Path("s/0"), results=content)
    assert cli.main(["compare", "s"]) == 2
    text = capsys.readouterr().err
    assert "s/0/results.json" in text
    assert words in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "embedgrad compare outputs/sweep"),
        ("nowhere", "nowhere:"),
        ("s format=md", "Did you mean --format md?"),
        ("s output_dir=x", "`embedgrad compare` takes no such setting"),
        ("s/0/results.json", "s/0/results.json:"),
        ("empty", "empty:"),
        ("begun", "begun/0"),
        ("s --formt md", "--formt:"),
        ("s --format jsn", "json?"),
        ("s --sort", "--sort"),
        ("s --sort lrr", "lr?"),
        ("s --sort accuracy", "arms.none.accuracy or arms.seed.accuracy or arms.optimized.accuracy"),
    ],
)
def test_wrong_input(line: str, words: str, capsys: Capture) -> None:
    write_run(Path("s/0"))
    Path("empty").mkdir()
    (write_run(Path("begun/0")) / "results.json").unlink()
    assert cli.main(["compare", *line.split()]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("embedgrad: ")
    assert captured.out == ""


def test_all_problems_are_printed_together(capsys: Capture) -> None:
    write_run(Path("s/0"), results={})
    (write_run(Path("s/1")) / "config.yaml").write_text("a: [")
    assert cli.main(["compare", "s", "nowhere", "--format", "x", "--y"]) == 2
    assert capsys.readouterr().err.startswith("embedgrad: 5 problems:\n")


def test_help_and_completion(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["compare", "--help"]) == 0
    assert "--mixed" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "\n  compare " in capsys.readouterr().out
    for line, words in (
        ("embedgrad com", "compare"),
        ("embedgrad compare --f", "--format"),
        ("embedgrad compare s", ""),
    ):
        monkeypatch.setenv("COMP_LINE", line)
        assert cli.main(["-sc", "query=bash"]) == 0
        assert capsys.readouterr().out.strip() == words


def test_a_run_of_a_single_arm_and_arms_with_dots(capsys: Capture) -> None:
    """As `evaluate arms=[text:Think.]` and `evaluate arms=[none,text:Think.]` write them."""
    alone, pair = summary([True] * 3, [True] * 3, "t"), summary([True, True, False], [True, True, True], "t")
    for one in (alone, pair):
        one["arms"]["text:Think."] = one["arms"].pop("optimized")
        one.pop("drift")
    alone |= {"arms": {"text:Think.": alone["arms"]["text:Think."]}, "comparison": None, "comparisons": []}
    pair["comparison"]["candidate"] = "text:Think."
    write_run(Path("s/0"), results=alone)
    write_run(Path("s/1"), results=pair)
    assert cli.main(["compare", "s", "--format", "md", "--sort", "text:Think."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "text:Think. (%)" in lines[2]
    assert any(line.startswith("| 0 |") and "100.0 (43.9 to 100.0)" in line for line in lines)
    for format in ("table", "csv", "json"):
        assert cli.main(["compare", "s/0", "--format", format]) == 0


def test_nothing_heavy_is_loaded() -> None:
    write_run(Path("s/0"))
    code = (
        "import sys; from embedgrad_cli.cli.main import main; main(['compare', 's']);"
        "print({'torch', 'transformers', 'hydra', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.slow
def test_a_real_sweep(tmp_path: Path, model_folder: Path, choice_data: Path, capsys: Capture, records: Records) -> None:
    """Learning rates and templates; the training data differs too, which changes nothing about the test."""
    task = {"name": "first-word", "kind": "choice", "data_dir": str(choice_data), "query": "{text}"}
    task |= {"target": "{label}", "labels": {"0": "negative", "1": "positive"}, "choices": ["negative", "positive"]}
    (tmp_path / "own/task").mkdir(parents=True)
    (tmp_path / "own/task/first-word.yaml").write_text(yaml.safe_dump(task | {"split": {"validation": ["validation"]}}))
    line = ["optimize", "--multirun", "--config-dir", "own", "task=first-word", "model=local", "device=cpu"]
    line += [f"model.path={model_folder}", "train.steps=2", "output_dir=sweep", "log_level=error"]
    assert cli.main([*line, "template=system,after-query", "task.split.num_train=16,24"]) == 0
    evaluate = ["evaluate", "artifact=sweep/0/prompt.safetensors", "device=cpu", "output_dir=again"]
    assert cli.main(evaluate) == 0
    capsys.readouterr()

    shown = records("sweep", "again", "--sort", "run")

    assert [one["run"] for one in shown] == ["again", "sweep/0", "sweep/1", "sweep/2", "sweep/3"]
    assert [one["config.template"] for one in shown] == ["system", "system", "system", "after-query", "after-query"]
    assert [one["config.task.split.num_train"] for one in shown] == [16, 16, 24, 16, 24]
    assert len({one["test_hash"] for one in shown}) == 1
    assert shown[0]["arms.optimized.accuracy"] == shown[1]["arms.optimized.accuracy"]
    assert shown[0]["validation.accuracy"] == shown[1]["validation.accuracy"], "an evaluation knows its artifact's"
    assert cli.main(["compare", "sweep"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
