"""No text of data, models or files commands the terminal, wherever it is printed."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from tests.artifacts import edited
from tests.chat_server import chat_server

from embedgrad_cli.cli.main import main
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.guards.console import Console
from embedgrad_cli.guards.visible_text import shortened, visible
from embedgrad_cli.storage.logs import RunLog

OLD_RUN = Path(__file__).parents[1] / "storage" / "old_run"
Capture = pytest.CaptureFixture[str]
# Set the title, clear the screen, go up a line; the last one in the 8-bit form that some terminals know.
NASTY = "\x1b]0;owned\x07\x1b[2J\x1b[1A\rfine\x08\x9b2Jnow"


def commands_in(text: str) -> set[str]:
    """The control characters in a text that are neither line breaks nor tabs."""
    return {character for character in text if unicodedata.category(character) in ("Cc", "Cs")} - set("\n\t")


def test_every_control_character_is_shown_and_nothing_else_is_changed() -> None:
    controls = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0xD83D)))
    assert commands_in(visible(controls)) == set()
    assert visible("naïve\tcafé\n中文 😀 \u202f") == "naïve\tcafé\n中文 😀 \u202f"
    assert json.loads(visible(json.dumps({"a": NASTY}, ensure_ascii=False))) == {"a": NASTY}, "JSON stays JSON"


def test_a_message_keeps_where_and_how_to_mend(capsys: Capture) -> None:
    assert shortened("short\n" + "x" * 3000) == "short\n" + "x" * 3000
    assert main(["optimize", f"train.steps={'x' * 100_000}", "prompt.tex=1"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 5000
    assert "train.steps: 'xxx" in said
    assert "is not a whole number" in said
    assert "prompt.text" in said


def test_the_console_keeps_its_own_colours() -> None:
    screen = io.StringIO()
    table = Table(title=Text(NASTY))
    table.add_column(Text(NASTY, style="bold red"))
    table.add_row(NASTY)
    console = Console(file=screen, force_terminal=True, color_system="standard", markup=False)
    console.print(Text(NASTY, style="bold red"), table, NASTY, soft_wrap=True)
    written = screen.getvalue()
    assert "\x1b[1;31m" in written
    assert "\x1b[2J" not in written
    assert "\x1b]" not in written
    assert "\x9b" not in written


def test_a_log(tmp_path: Path, capsys: Capture) -> None:
    with RunLog("info") as run_log:
        run_log.write_to(tmp_path / "log")
        logging.getLogger("embedgrad_cli.tests").warning("a row: %s", NASTY)
    for text in (capsys.readouterr().err, (tmp_path / "log").read_text()):
        assert "owned" in text
        assert commands_in(text) == set()


def printed(capsys: Capture, *words: object) -> str:
    """What a command writes to both streams."""
    assert main(list(map(str, words))) in (0, 2)
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows that a terminal would obey."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"review": f"{split} {number} {NASTY}", "label": "positive"} for number in range(4)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.usefixtures("empty_folder")
def test_rows_and_errors_that_quote_them(data: Path, capsys: Capture) -> None:
    shown = printed(capsys, "tasks", "show", "reviews", f"task.data_dir={data}")
    (data / "train.jsonl").write_text(json.dumps({"review": "fine", "label": NASTY}) + "\n")
    refused = printed(capsys, "tasks", "show", "reviews", f"task.data_dir={data}")
    for text in (shown, refused):
        assert "owned" in text
        assert commands_in(text) == set()


@pytest.mark.usefixtures("empty_folder")
def test_answers_of_a_server_and_what_it_calls_itself(data: Path, capsys: Capture) -> None:
    with chat_server(lambda messages: f"positive {NASTY}", models=[NASTY]) as chat:
        line = ["evaluate", f"server={chat.url}", "task=reviews", f"task.data_dir={data}", "arms=[none]"]
        text = printed(capsys, *line, "task.kind=generation", "template=system", "prompt=sentiment", "output_dir=run")
    assert "owned" in text
    assert commands_in(text) == set()
    assert commands_in(Path("run/embedgrad.log").read_text()) == set()


def test_what_artifacts_and_runs_say_of_themselves(tmp_path: Path, capsys: Capture) -> None:
    made = load_artifact(OLD_RUN / "prompt.safetensors")
    file = tmp_path / "a.safetensors"
    save_artifact(file, made.prompt, edited(made.metadata, seed__text=NASTY, task=NASTY, model__path=NASTY))
    texts = [printed(capsys, "inspect", file, "--format", name) for name in ("table", "json")]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((OLD_RUN / "config.yaml").read_text())
    results = json.loads((OLD_RUN / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "task": NASTY, "model": NASTY}))
    texts += [printed(capsys, "compare", run, "--format", name) for name in ("table", "md", "csv", "json")]
    for text in texts:
        assert "owned" in text
        assert commands_in(text) == set()
