"""`embedgrad tasks` and `embedgrad tasks show NAME`, as a user runs them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.conftest import shared_data

from embedgrad_cli.cli import main as cli
from embedgrad_cli.config.compose import Composer


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["tasks", *argv]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["tasks", *argv]) == 2
    captured = capsys.readouterr()
    return captured.err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the user's own with one task, and data of six rows."""
    (tmp_path / "task").mkdir()
    (tmp_path / "data").mkdir()
    text = (
        f"# Colours of things. More words.\n#   embedgrad …\nname: mine\nkind: generation\ndata_dir: {tmp_path}/data\n"
    )
    text += 'query: "{q} [bold]"\ntarget: "{a}"\nsplit: {test: null, num_validation: 1, num_test: 1}\n'
    (tmp_path / "task" / "mine.yaml").write_text(text)
    rows = [{"q": f"Colour of thing {n}?", "a": "red"} for n in range(6)]
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_list_names_every_task(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--config-dir", str(own)).splitlines()
    assert [line.split()[0] for line in lines] == sorted([*Composer().groups()["task"], "mine"])
    by_name = {line.split()[0]: line for line in lines}
    assert re.fullmatch(rf"mine +generation +{own}/data +Colours of things", by_name["mine"])
    assert re.fullmatch(r"gsm8k +generation +hub openai/gsm8k main +GSM8K, .*\(Cobbe et al. 2021\)", by_name["gsm8k"])
    assert re.fullmatch(r"reviews +choice +embedded:reviews +Sentiment of .*", by_name["reviews"])


def test_a_broken_task_is_named_and_the_others_are_listed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "task" / "bad.yaml").write_text("name: [\n")
    assert cli.main(["tasks", "--config-dir", str(own)]) == 2
    captured = capsys.readouterr()
    assert "task=bad: the configs do not compose" in captured.err
    assert "mine" in captured.out


def test_show_marks_the_parts_and_counts_their_tokens(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", "mine", "--config-dir", str(own), "template=after-query", "seed=3")
    assert "mine: generation, on the tokenizer of embedded:tiny, chat template" in text
    assert "rows: 4 train, 1 validation, 1 test; 0 repetitions removed" in text
    assert text.count("[prompt: Please reason step by step.]<|im_end|>") == 3
    assert len(re.findall(r"\[query: Colour of thing \d\? \[bold\]\]\n\[prompt:", text)) == 3
    assert text.count("[target: red<|im_end|>]") == 3
    for total, template, prompt, query in re.findall(
        r"· (\d+) tokens = (\d+) template \+ (\d+) prompt \+ (\d+) query; then", text
    ):
        assert int(total) == int(template) + int(prompt) + int(query)
    assert "\x1b" not in text  # no colours where there is no terminal


def test_show_counts_worked_examples_apart(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = said(capsys, "show", "mine", "--config-dir", str(own))
    shots = said(capsys, "show", "mine", "--config-dir", str(own), "task.fewshot=2", "task.fewshot_style=turns")
    assert "worked examples" not in plain
    assert "rows: 2 train" in shots
    templates = [re.findall(r"= (\d+) template", text)[0] for text in (plain, shots)]
    assert templates[0] == templates[1]
    assert int(re.findall(r"\+ (\d+) worked examples", shots)[0]) > 20


def test_show_takes_any_tokenizer_and_loads_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "qwen"
    shutil.copytree(shared_data("tokenizers/qwen2.5"), folder)
    shutil.copy(shared_data("configs/qwen2.5") / "Qwen2.5-0.5B.config.json", folder / "config.json")
    gsm8k = shared_data("gsm8k")
    text = said(capsys, "show", "gsm8k", f"task.data_dir={gsm8k}", "model=local", f"model.path={folder}")
    assert "7,273 train, 200 validation, 1,319 test" in text
    assert "train:0 · 58 tokens = 13 template + 6 prompt + 39 query; then 43 target" in text
    assert "<|im_start|>system\n[prompt: Please reason step by step.]<|im_end|>" in text
    assert "<<" not in text  # the calculator annotations
    seed, none, bare = re.split(r"^train:0 · the arm (?:none|bare).*\n", text, flags=re.MULTILINE)
    assert "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud." in none
    assert "You are Qwen" not in seed + bare
    assert bare.startswith("[query: ")
    assert re.findall(r"of its own under (\w+): ", text) == ["none"]
    assert len(re.findall(r"\n#### [\d,]+<\|im_end\|>\]", text)) == 3


def test_what_was_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", "causal-judgement", f"task.data_dir={shared_data('bbh')}")
    rows = ", ".join(f"causal_judgement:{n}" for n in (32, 36, 104, 119))
    assert f"contradictory rows left out: {rows}\n" in text
    assert "choices: Yes, No" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show"], "NAME"),
        (["show", "task.fewshot=3"], "NAME"),
        (["list"], "'list'"),
        (["show", "sst2", "--frobnicate", "x"], "--frobnicate"),
        (["show", "sst3"], "task=sst2?"),
        (["show", "bbh"], "task.name:"),
        (["--frobnicate"], "--frobnicate"),
        (["--config-dir", "nowhere"], "'nowhere'"),
    ],
)
def test_wrong_words_are_one_plain_paragraph(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, *argv)
    assert words in error
    assert "Traceback" not in error


def test_only_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "required: NAME." in refused(capsys, "show")


def test_settings_of_a_task_are_all_checked_at_once(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["task.target_pattern='('", "task.split.num_test=1.5", "task.fold=2", "task.keep=3"]
    error = refused(capsys, "show", "mine", "--config-dir", str(own), *wrong)
    assert "task.keep: 3" in error
    error = refused(
        capsys, "show", "mine", "--config-dir", str(own), *wrong[:3], "task.fewshot=[{query: a, target: ' '}]"
    )
    assert error.startswith("embedgrad: 4 problems:")
    for words in (
        "task.target_pattern:",
        "task.split.num_test: 1.5",
        "task.fold: 2",
        "task.fewshot[0].target:",
    ):
        assert words in error


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["task.split.folds=5"], "task.fold:"),
        (["task.split.folds=5", "task.fold=5"], "task.fold: 5"),
        (["task.split.folds=2", "task.fold=0", "task.split.test=test"], "task.split.folds"),
        (["task.split.folds=1", "task.fold=0"], "task.split.folds: 1"),
        (["task.split.num_validation=null"], "task.split.num_validation:"),
        (["task.split.num_validation=0.5", "task.split.num_test=0.5"], "task.split.num_validation"),
        (["task.split.num_test=0"], "task.split.num_test: 0"),
        (["task.fewshot=-1"], "task.fewshot: -1"),
        (["task.kind=choice"], "task.choices:"),
        (["task.extraction=loose"], "task.extraction: 'loose'"),
        (["'task.fewshot=[{query: \"{query}\", target: b}]'"], "{query}"),
    ],
)  # fmt: skip
def test_every_new_setting_is_checked(
    settings: list[str], words: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "show", "mine", "--config-dir", str(own), *[s.strip("'") for s in settings])


def test_flags_stand_anywhere(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag, settings = ["--config-dir", str(own)], ["template=after-query", "seed=3"]
    first = said(capsys, "show", "mine", *settings, *flag)
    for line in (
        ["show", *flag, "mine", *settings],
        ["show", "mine", settings[0], *flag, settings[1]],
        [*flag, "show", "mine", *settings],
    ):
        assert said(capsys, *line) == first


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: embedgrad tasks" in said(capsys, "--help")
    assert "usage: embedgrad tasks show NAME" in said(capsys, "show", "--help")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("embedgrad tas", {"tasks"}),
        ("embedgrad tasks s", {"show"}),
        ("embedgrad tasks show s", {"sst2"}),
        ("embedgrad tasks --c", {"--config-dir"}),
        ("embedgrad tasks show sst2 prompt=s", {"prompt=sentiment", "prompt=step-by-step"}),
    ],
)
def test_completion(
    line: str, expected: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    assert set(capsys.readouterr().out.split()) == expected
