"""Input that cannot be exported: one paragraph, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import make_model
from tests.exports.conftest import Case

from embedgrad_cli.cli.main import main
from embedgrad_cli.storage.files import place_beside

FORMATS = ["model", "gguf", "peft", "embeds"]


def assert_refused(code: int, folder: Path, errors: str, named: str) -> None:
    """`named` is the setting, file or folder that the paragraph is about."""
    assert code == 2
    assert errors.startswith("embedgrad: ")
    assert len(errors.strip().splitlines()) == 1
    assert named in errors
    assert [path.name for path in folder.iterdir() if path.name.startswith("out")] == []


@pytest.mark.parametrize("format", FORMATS)
def test_another_model_is_refused(format: str, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_model("llama")
    other.network.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    code = case.export(format, tmp_path / "out", f"model.path={tmp_path}/other")
    assert_refused(code, tmp_path, capsys.readouterr().err, f"artifact={case.artifact} ")


def test_other_weights_of_the_same_shape_are_refused(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.model.network.get_input_embeddings().weight[case.prompt.slots.flat_ids[1]].mul_(-1)
    case.model.network.save_pretrained(case.folder)
    code = case.export("model", tmp_path / "out")
    assert_refused(code, tmp_path, capsys.readouterr().err, f"artifact={case.artifact} ")


def test_a_model_that_moved_is_found_where_it_is_now(case: Case, tmp_path: Path) -> None:
    case.folder.rename(tmp_path / "moved")
    assert case.export("embeds", tmp_path / "out", f"model.path={tmp_path}/moved") == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json"),
        lambda folder: (folder / "config.json").write_text("{"),
    ],
    ids=["no weights", "damaged weights", "damaged config"],
)
def test_a_damaged_model_folder(
    damage: Callable[[Path], object], case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(case.folder)
    assert_refused(case.export("model", tmp_path / "out"), tmp_path, capsys.readouterr().err, str(case.folder))


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_with_files_in_it_is_left_alone(
    format: str, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert_refused(case.export(format, mine), tmp_path, capsys.readouterr().err, f"output_dir={mine} ")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_the_current_folder_is_not_replaced(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert_refused(case.export("embeds", Path()), tmp_path, capsys.readouterr().err, "output_dir=.")


def test_of_what_stands_beside_an_export_what_a_killed_one_left_is_removed(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = [tmp_path / "out.partial", tmp_path / ".out.partial", place_beside(tmp_path / "another")]
    for folder in mine:
        folder.mkdir()
        (folder / "half").write_text("written")
    before = {path.name for path in tmp_path.iterdir()}
    left = place_beside(out)
    left.mkdir()
    (left / "half").write_text("written")
    assert case.export("embeds", out) == 0
    assert {path.name for path in tmp_path.iterdir()} == before | {"out"}


def test_folders_made_on_the_way_are_taken_back(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (case.folder / "model.safetensors").unlink()
    code = case.export("model", tmp_path / "there/out/deep/down")
    assert_refused(code, tmp_path / "there", capsys.readouterr().err, str(case.folder))
    assert (tmp_path / "there").is_dir()


def test_a_folder_below_a_file(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = case.export("model", case.artifact / "out")
    assert_refused(code, tmp_path, capsys.readouterr().err, f"output_dir={case.artifact}/out ")


@pytest.mark.parametrize("format", [*FORMATS, "text", "hub"])
def test_an_artifact_of_a_newer_format(
    format: str, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with safe_open(case.artifact, "pt") as file:
        metadata = json.loads(file.metadata()["embedgrad"])
    newer = json.dumps({**metadata, "format_version": 99})
    save_file(load_file(case.artifact), case.artifact, {"embedgrad": newer})
    assert_refused(
        case.export(format, tmp_path / "out"), tmp_path, capsys.readouterr().err, f"artifact={case.artifact} "
    )
    assert main(["inspect", str(case.artifact)]) == 2
    assert f"artifact={case.artifact} " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("room", "format"), [(1_000, "embeds"), (1_000, "peft"), (60_000, "model"), (60_000, "gguf")])
def test_files_that_cannot_be_written_in_full(format: str, room: int, case: Case, tmp_path: Path) -> None:
    """The system itself stops every file at so many bytes, which Python and Rust report in their own ways."""
    program = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));"
        "from embedgrad_cli.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["export", f"artifact={case.artifact}", f"format={format}", f"output_dir={tmp_path}/out"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert_refused(done.returncode, tmp_path, done.stderr, "cannot be written: ")
    assert "File too large" in done.stderr or "files may not be so large" in done.stderr


FILL_AND_RUN = """
mount -t tmpfs -o size=64k tmpfs "$1" && head -c 48000 /dev/zero > "$1/filler" || exit 77
shift 1 && "$@"
code=$?
ls "$DISK"
exit $code
"""


@pytest.mark.slow
def test_a_full_disk(case: Case, tmp_path: Path) -> None:
    """A file system of 64 kB, in a name space of its own: it is gone when the command ends, however that ends."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = "import sys; from embedgrad_cli.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["export", f"artifact={case.artifact}", "format=model", f"output_dir={disk}/out"]
    command = ["unshare", "--mount", "sh", "-c", FILL_AND_RUN, "sh", str(disk), sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DISK": str(disk)})
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert_refused(done.returncode, disk, done.stderr, "output_dir")
    assert done.stdout.split() == ["filler"]
