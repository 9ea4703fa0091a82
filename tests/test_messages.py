"""One whole paragraph of each kind of message, to the letter: elsewhere tests check the data in a message alone.

Each says what was wrong, where, what was expected, and how to mend it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.artifacts import plain_metadata, write_header
from tests.chat_server import chat_server, content
from tests.tasks.make_task import HELD_OUT, make_task, write_lines

from embedgrad_cli.cli.main import main
from embedgrad_cli.core.kernels.memory import OutOfMemory
from embedgrad_cli.core.passes import forward
from embedgrad_cli.errors import DataError, UserError
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.tasks.load import load

Capture = pytest.CaptureFixture[str]
OLD_RUN = Path(__file__).parent / "storage/old_run/prompt.safetensors"


WRONG_VALUE = (
    "embedgrad: optimizer.lr: -1 is not above 0 (learning rate, in units of the embedding table's root mean square).\n"
)
MISSPELT = (
    "embedgrad: task: there is no 'gsm9k'. Did you mean task=gsm8k? There are bbh, causal-judgement, "
    "causes, gsm8k, math, recommend, reviews, sst2, word-problems.\n"
)
QUOTING = (
    "embedgrad: 'prompt.text=Why(now' cannot be read. Write text in quotes within quotes: "
    "'prompt.text=\"Why(now\"'; a list in brackets: 'prompt.text=[a,b]'.\n"
)
SEVERAL = (
    "embedgrad: 3 problems:\n"
    "  - train.stepz: there is no such setting. Did you mean train.steps?\n"
    "  - 'nonsense' is not KEY=VALUE. Put no spaces around =.\n"
    "  - device: 'gpu' is not one of auto, cpu, cuda, cuda:N, mps.\n"
)
BROKEN_ROWS = (
    "DIR/train.jsonl, line 2: no column 'text', which task.query names (columns found: txt, label)\n"
    "DIR/train.jsonl, line 3: label outside the choices: '7' (choices: 0 = negative, 1 = positive)\n"
    "Correct the file, or the task's settings (task.query, task.target, task.labels, task.choices, …). Or"
    " leave such rows out, counted in the results, with task.broken=skip."
)
NEWER_FORMAT = (
    "embedgrad: artifact=newer.safetensors cannot be read: it has format version 99, and this embedgrad "
    "reads up to 2. Upgrade: pip install -U embedgrad.\n"
)
NEWER_FIELD = (
    "embedgrad: artifact=newer.safetensors cannot be used: key objective is 'reward', and this version "
    "knows no such key. If a newer embedgrad wrote it, upgrade: pip install -U embedgrad. Otherwise copy "
    "it again.\n"
)
OTHER_MODEL = (
    "embedgrad: artifact=FILE was made for the model embedded:tiny (config HASH, tokenizer HASH), but the"
    " model here is FOLDER (config HASH, tokenizer HASH); different: config, tokenizer. Use the model it "
    "was made for (model=… or model.path=…), or optimise a prompt for this one.\n"
)
OTHER_SETTINGS = (
    "output_dir=DIR holds a run with other settings: seed=2 (was 1); train.steps=4 (was 3). Use another "
    "output_dir, or the same settings to resume; nothing was written."
)
NO_FOLDER = "embedgrad: output_dir: 'file' is a file. Give a folder; it may be a new one.\n"
MEMORY = (
    "memory ran out with micro-batches of 1 example(s). train.micro_batch_size=auto finds the largest "
    "that fits; where one example is too much, train.checkpoint_activations=true, model.dtype=bfloat16, a"
    " smaller model or shorter rows need less."
)
NO_RUN = (
    "embedgrad: empty: no run directory (with config.yaml and results.json) is here or below. Give the "
    "output_dir of a run, or a folder that holds some.\n"
)
NO_CHAT = (
    "test: none, 1 examples\n"
    "embedgrad: URL/v1/chat/completions: what it sent is no JSON object. Received (22 bytes): <html>It works!</html> "
    "Give the address of an OpenAI-compatible server.\n"
)
NO_ARM = (
    "embedgrad: arms: 'sead' is no arm. Did you mean seed? Arms are none, bare, seed, optimized, served, text:\"…\""
    " (any prompt; a text with a comma in quotes that the shell leaves: 'arms=[text:\"First, think.\"]') "
    "and files that end in .safetensors.\n"
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: Capture, *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_a_wrong_value(capsys: Capture) -> None:
    assert said(capsys, "optimize", "optimizer.lr=-1") == WRONG_VALUE


def test_a_misspelt_choice(capsys: Capture) -> None:
    assert said(capsys, "optimize", "task=gsm9k") == MISSPELT


def test_a_text_that_the_shell_took_apart(capsys: Capture) -> None:
    assert said(capsys, "optimize", "prompt.text=Why(now") == QUOTING


def test_several_problems_at_once(capsys: Capture) -> None:
    assert said(capsys, "optimize", "train.stepz=3", "device=gpu", "nonsense") == SEVERAL


def test_broken_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "1"}, {"txt": "b", "label": "1"}, {"text": "c", "label": "7"}]
    write_lines(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError) as error:
        load(make_task(tmp_path, split=HELD_OUT), 0)
    assert str(error.value).replace(str(tmp_path), "DIR") == BROKEN_ROWS


def test_a_newer_artifact(capsys: Capture) -> None:
    write_header(Path("newer.safetensors"), {"format_version": 99})
    assert said(capsys, "inspect", "newer.safetensors") == NEWER_FORMAT


def test_a_newer_field(capsys: Capture) -> None:
    write_header(Path("newer.safetensors"), plain_metadata(objective="reward"))
    assert said(capsys, "inspect", "newer.safetensors") == NEWER_FIELD


def test_an_artifact_for_another_model(capsys: Capture, model_folder: Path) -> None:
    text = said(capsys, "inspect", str(OLD_RUN), "--verify", str(model_folder))
    text = text.replace(str(OLD_RUN), "FILE").replace(str(model_folder), "FOLDER")
    assert re.sub(r"\b[0-9a-f]{8}\b", "HASH", text) == OTHER_MODEL


def test_other_settings_on_resume(tmp_path: Path) -> None:
    RunDirectory(tmp_path, {"seed": 1, "train": {"steps": 3}}).create()
    with pytest.raises(UserError) as error:
        RunDirectory(tmp_path, {"seed": 2, "train": {"steps": 4}})
    assert str(error.value).replace(str(tmp_path), "DIR") == OTHER_SETTINGS


def test_a_place_that_cannot_be_used(capsys: Capture) -> None:
    Path("file").touch()
    assert said(capsys, "optimize", "output_dir=file") == NO_FOLDER


def test_memory() -> None:
    assert str(OutOfMemory(forward._OUT_OF_MEMORY.format(size=1))) == MEMORY


def test_no_run_to_compare(capsys: Capture) -> None:
    Path("empty").mkdir()
    assert said(capsys, "compare", "empty") == NO_RUN


def test_a_server_that_is_another(capsys: Capture) -> None:
    with chat_server(lambda messages: "1", always=content(b"<html>It works!</html>")) as chat:
        line = ["evaluate", f"server={chat.url}", "template=system", "task=word-problems", "arms=[none]"]
        text = said(capsys, *line, "task.split.num_test=1", "output_dir=out").replace(chat.url, "URL")
    assert text == NO_CHAT


def test_an_arm_that_is_none(capsys: Capture) -> None:
    line = ["evaluate", "model=tiny", "template=system", "task=word-problems", "arms=[none,sead]"]
    assert said(capsys, *line) == NO_ARM
