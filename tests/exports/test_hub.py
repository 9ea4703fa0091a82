"""`format=hub`: the card as the hub's own library reads it, and that library's upload to a server on this machine."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from tests.artifacts import edited
from tests.conftest import optimize_config

from embedgrad_cli.cli import main as cli
from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.exports.model_card import hub_id, model_card

FILES = ["README.md", "config.yaml", "prompt.safetensors"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> OptimizeConfig:
    config = optimize_config(tmp_path_factory.mktemp("trained"), model_folder, choice_data)
    optimize.run(config)
    return config


def line(trained: OptimizeConfig, *more: str) -> list[str]:
    return ["export", f"artifact={trained.output_dir}/prompt.safetensors", "format=hub", *more]


def test_the_card_says_what_was_measured(trained: OptimizeConfig, tmp_path: Path) -> None:
    assert cli.main(line(trained, f"output_dir={tmp_path}/first-word-prompt")) == 0

    folder = tmp_path / "first-word-prompt"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert (folder / "prompt.safetensors").read_bytes() == (
        Path(trained.output_dir) / "prompt.safetensors"
    ).read_bytes()
    results = json.loads((Path(trained.output_dir) / "results.json").read_text())
    arms, comparison, elsewhere = results["arms"], results["comparison"], results["elsewhere"]
    card = ModelCard.load(folder / "README.md")
    measured = {result.metric_args["arm"]: result for result in card.data.eval_results}
    assert list(measured) == ["optimized", "seed", "none"]
    for name, result in measured.items():
        assert result.metric_value == pytest.approx(100 * arms[name]["accuracy"], abs=0.006)
        assert result.metric_args["ci95"] == pytest.approx([100 * limit for limit in arms[name]["ci95"]], abs=0.006)
        assert (result.task_type, result.dataset_name, result.dataset_split) == (
            "text-classification", "first-word", "test",
        )  # fmt: skip
        assert f"| {100 * arms[name]['accuracy']:.1f}% |" in card.text
    assert f"is wrong {comparison['wins']} times, and wrong where the text is right {comparison['losses']}" in card.text
    assert f"{elsewhere['kl']:.3f} nats per token" in card.text
    assert card.data.model_name == "first-word-prompt"
    assert card.data.get("base_model") is None, "a folder of this machine is no base model of the hub's"
    assert card.data.license is None
    assert "# license: yours to choose" in (folder / "README.md").read_text()
    assert yaml.safe_load((folder / "config.yaml").read_text())["task"]["name"] == "first-word"


def test_what_the_hub_knows_by_name(trained: OptimizeConfig) -> None:
    metadata = load_artifact(Path(trained.output_dir) / "prompt.safetensors").metadata
    hub = {"path": "nyu-mll/glue", "name": "sst2", "revision": None}
    model = {**metadata.model.to_json(), "path": "Qwen/Qwen2.5-0.5B", "revision": "abc"}
    metadata = edited(metadata, model=model, config__task__hub=hub, metrics={})
    card = ModelCard(model_card(metadata, "x"))
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B"
    assert card.data.datasets == ["nyu-mll/glue"]
    assert card.data.eval_results is None
    assert "Not tested" in card.text
    assert "at revision `abc`" in card.text
    assert [hub_id(path) for path in ("gpt2", "a/b", "/a/b", "./a", "~/a", "a/b/c", "embedded:tiny")] == [
        "gpt2", "a/b", None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_in_the_card_is_the_runs(tmp_path: Path) -> None:
    words = ["optimize", "experiment=debug", "template=after-query", "device=cpu", f"output_dir={tmp_path}/run"]
    assert cli.main([*words, "log_level=warning"]) == 0
    metadata = load_artifact(tmp_path / "run/prompt.safetensors").metadata
    text = model_card(metadata, "x")
    (command,) = [row for row in text.splitlines() if row.startswith("embedgrad optimize")]
    assert cli.main([*command.split()[1:], "device=cpu", "log_level=warning", f"output_dir={tmp_path}/again"]) == 0
    first, second = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in ("run", "again"))
    assert first == second


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload of small files uses."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.requests.append((self.path, self.headers.get("Authorization"), body))
        if self.path == "/api/repos/create":
            answer: dict[str, Any] = {"url": f"{server.address}/someone/prompts"}
        elif self.path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        else:
            answer = {"commitUrl": f"{server.address}/someone/prompts/commit/1", "commitOid": "1"}
        self.reply(server.status if "/commit/" in self.path else 200, answer)

    def do_GET(self) -> None:
        self.reply(404, {"error": "not found"})

    def reply(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.status, server.address = [], 200, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def push(
    trained: OptimizeConfig, folder: Path, hub: Any, *more: str, answer: str | None = None, token: str = "t0k"
) -> Any:
    """The command in a process of its own whose hub is the server; with an answer, its stdin is a terminal."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home")}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_TOKEN": token}
    words = line(trained, "push=someone/prompts", f"output_dir={folder}/out", *more)
    command = [sys.executable, "-m", "embedgrad_cli.cli.main", *words]
    ours, theirs = pty.openpty()
    if answer is not None:
        os.write(ours, f"{answer}\n".encode())
    stdin = theirs if answer is not None else subprocess.DEVNULL
    try:
        return subprocess.run(command, env=environment, stdin=stdin, capture_output=True, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "yes=true"])
def test_an_upload(how: str, trained: OptimizeConfig, hub: Any, tmp_path: Path) -> None:
    done = push(trained, tmp_path, hub, answer="y") if how == "asked" else push(trained, tmp_path, hub, how)

    assert done.returncode == 0, done.stderr
    assert ("Upload 3 files" in done.stdout) == (how == "asked")
    assert f"uploaded to {hub.address}/someone/prompts/commit/1" in done.stdout
    sent = {path: body for path, _, body in hub.requests}
    created = json.loads(sent["/api/repos/create"])  # earlier versions of the library say `private`
    assert created.get("visibility") == "private" or created.get("private") is True
    assert {authorization for _, authorization, _ in hub.requests} == {"Bearer t0k"}
    operations = [json.loads(row) for row in sent["/api/models/someone/prompts/commit/main"].splitlines()]
    files = {o["value"]["path"]: base64.b64decode(o["value"]["content"]) for o in operations if o["key"] == "file"}
    assert files == {name: (tmp_path / "out" / name).read_bytes() for name in FILES}


@pytest.mark.slow
def test_no_is_no(trained: OptimizeConfig, hub: Any, tmp_path: Path) -> None:
    done = push(trained, tmp_path, hub, answer="n")
    assert done.returncode == 0, done.stderr
    assert "not uploaded" in done.stdout
    assert hub.requests == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "token", "words"),
    [([], "t0k", "no terminal to ask on. Add yes=true"), (["yes=true"], "", "no one is logged in")],
)
def test_refused_before_anything_is_written(
    more: list[str], token: str, words: str, trained: OptimizeConfig, hub: Any, tmp_path: Path
) -> None:
    done = push(trained, tmp_path, hub, *more, token=token)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_refused_upload_leaves_nothing(trained: OptimizeConfig, hub: Any, tmp_path: Path) -> None:
    hub.status = 403
    done = push(trained, tmp_path, hub, "yes=true")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("embedgrad: push=someone/prompts: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_folders_of_this_machine_are_pointed_out(
    trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line(trained, f"output_dir={tmp_path}/a")) == 0
    assert "folders of this machine: model.path, task.data_dir" in capsys.readouterr().out
    artifact = load_artifact(Path(trained.output_dir) / "prompt.safetensors")
    metadata = edited(artifact.metadata, config__model__path="embedded:tiny", config__task__data_dir=None)
    save_artifact(tmp_path / "clean.safetensors", artifact.prompt, metadata)
    assert cli.main(["export", f"artifact={tmp_path}/clean.safetensors", "format=hub", f"output_dir={tmp_path}/b"]) == 0
    assert "folders of this machine" not in capsys.readouterr().out


@pytest.mark.parametrize("repository", ["prompts", "a/b/c"])
def test_a_repository_has_an_owner(
    repository: str, trained: OptimizeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line(trained, f"push={repository}")) == 2
    assert f"push: {repository!r} " in capsys.readouterr().err


@pytest.mark.parametrize("push", [["push=someone/prompts"], ["--push", "someone/prompts"], ["--push=someone/prompts"]])
def test_without_a_terminal_to_ask_on_nothing_is_written(
    push: list[str], trained: OptimizeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    assert cli.main(line(trained, *push, f"output_dir={tmp_path}/out")) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("embedgrad: push=someone/prompts: ")
    assert "yes=true" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("after", [[], ["output_dir=out"], ["--multirun"]])
def test_the_flag_needs_a_repository(after: list[str], trained: OptimizeConfig, capsys: Any) -> None:
    assert cli.main(line(trained, "--push", *after)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("embedgrad: --push ")
    assert "--push OWNER/NAME" in errors
