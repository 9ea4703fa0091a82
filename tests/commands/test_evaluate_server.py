"""`evaluate server=URL` against a real HTTP server on loopback, which answers chats and misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chat_server import ChatServer, Reply, bomb, chat_server, content, cut, endless, status
from tests.conftest import evaluate_config, optimize_config, samples
from tests.stops import stop_at_batch

from embedgrad_cli.commands import evaluate_server
from embedgrad_cli.comparison.runs import read_run
from embedgrad_cli.config.schema import EvaluateConfig
from embedgrad_cli.errors import ServerError, UserError
from embedgrad_cli.evaluation.answer_log import AnswerLog
from embedgrad_cli.evaluation.served import client
from embedgrad_cli.storage.interrupts import Stopped

NUM_ROWS = 9
SEED = "Please reason step by step."
TEXT = "text:Give the answer."
Make = Callable[..., EvaluateConfig]


def sum_of(messages: list[dict[str, str]]) -> str:
    """Right under the seed prompt; without one only for even sums."""
    total = sum(int(word) for word in messages[-1]["content"].split() if word.isdigit())
    has_seed = any(SEED in message["content"] for message in messages)
    return f"We add.\n#### {total if has_seed or total % 2 == 0 else total + 1}"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Evaluations of one small task: `make(chat, "run", requests__retries=0)`. Pauses are short."""
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    data = tmp_path / "data"
    data.mkdir()
    for split, start in [("train", 0), ("validation", 100), ("test", 200)]:
        rows = [{"q": f"What is {start + i} + {i * i} ?", "a": f"#### {start + i + i * i}"} for i in range(NUM_ROWS)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = optimize_config(tmp_path / "unused", tmp_path / "no model", data)
    problem.prompt.text = SEED
    task = {"kind": "generation", "choices": None, "labels": None, "grader": "last-number"}
    for key, value in {**task, "query": "{q}", "target": "{a}", "max_new_tokens": 17}.items():
        setattr(problem.task, key, value)

    def config(chat: ChatServer, name: str = "run", **changes: Any) -> EvaluateConfig:
        given = {"server": chat.url, "arms": ["none", "seed", TEXT], "requests__retries": 2, **changes}
        return evaluate_config(problem, tmp_path / name, **given)

    return config


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with chat_server(sum_of) as server:
        yield server


def results_in(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def test_what_is_asked_and_what_becomes_of_the_answers(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    accuracy = evaluate_server.run(make(chat))
    results = results_in(tmp_path / "run")
    even = sum((200 + i + i * i) % 2 == 0 for i in range(NUM_ROWS))
    assert {name: arm["correct"] for name, arm in results["arms"].items()} == {
        "none": even,
        "seed": NUM_ROWS,
        TEXT: even,
    }
    assert [(one["wins"], one["losses"]) for one in results["comparisons"]] == [(0, NUM_ROWS - even)] * 2
    assert accuracy == even / NUM_ROWS
    assert results["arms"]["seed"]["endings"] == {"end_of_turn": NUM_ROWS, "stop": 0, "limit": 0}
    assert (results["model"], results["server"]["model_digest"]) == ("tiny", "not known")
    assert "model" not in results["digests"]
    lines = samples(tmp_path / "run")
    assert [line["arm"] for line in lines[:3]] == ["none", "seed", TEXT]
    assert all(line["strict"]["extracted"] and line["tokens"] == 4 for line in lines)
    assert not (tmp_path / "run/answers.partial.jsonl").exists()

    assert len(chat.requests) == 3 * NUM_ROWS
    for body in chat.requests:
        assert {key: body[key] for key in ("model", "temperature", "seed", "max_tokens")} == {
            "model": "tiny",
            "temperature": 0,
            "seed": 0,
            "max_tokens": 17,
        }
    sent = {json.dumps([(m["role"], m["content"]) for m in body["messages"]]) for body in chat.requests}
    query = next(line["query"] for line in lines)
    for messages in ([], [("system", SEED)], [("system", "Give the answer.")]):
        assert json.dumps([*messages, ("user", query)]) in sent


def test_a_finished_evaluation_asks_nothing(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    evaluate_server.run(make(chat, mode="predict-only"))
    asked, before = len(chat.requests), samples(tmp_path / "run")
    assert "correct" not in before[0]
    accuracy = evaluate_server.run(make(chat, requests__at_once=3))
    assert evaluate_server.run(make(chat)) == accuracy
    again = evaluate_server.run(make(chat, mode="regrade", baseline="none"))
    assert again == 1.0
    assert results_in(tmp_path / "run")["server"]["arms"]["seed"]["server"] == f"{chat.url}/v1"
    assert len(chat.requests) == asked
    with pytest.raises(UserError, match=r"requests\.extra\.top_k=1"):
        evaluate_server.run(make(chat, requests__extra={"top_k": 1}))


def test_how_often_it_was_tried_is_no_difference_between_runs(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    evaluate_server.run(make(chat, "a", arms=["seed"]))
    evaluate_server.run(make(chat, "b", arms=["seed"], requests__at_once=1, requests__retries=9))
    a, b = (read_run(tmp_path / name).config for name in ("a", "b"))
    assert a == b
    assert a["server"] == chat.url


@pytest.mark.parametrize(
    "fault",
    [status(429, {"Retry-After": "0"}), status(500), status(503), cut, endless(0.05)],
    ids=["429", "500", "503", "cut", "slow"],
)
def test_what_passes_is_tried_again(make: Make, chat: ChatServer, tmp_path: Path, fault: Reply) -> None:
    evaluate_server.run(make(chat, "whole"))
    chat.faults = {len(chat.requests) + number: fault for number in (0, 7, 15)}
    evaluate_server.run(make(chat, "faulty", requests__timeout=0.5))
    assert len(chat.requests) == 2 * 3 * NUM_ROWS + 3
    whole, faulty = results_in(tmp_path / "whole"), results_in(tmp_path / "faulty")
    assert faulty == whole
    assert samples(tmp_path / "faulty") == samples(tmp_path / "whole")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(400), 'HTTP 400. Received (35 bytes): {"error": {"message": "fault 400"}}'),
        (status(500), "HTTP 500 (the last of 3 tries). Received"),
        (status(307, {"Location": "http://127.0.0.1:9/"}), "HTTP 307"),
        (content(b"<html>\n<b>It works!</b>\x00"), "no JSON object. Received (24 bytes): <html> <b>It works!</b>·"),
        (content(b"[" * 100_000), "no JSON object"),
        (content(b""), "Nothing was received"),
        (content({"choices": []}), "choices[0].message.content"),
        (content({"choices": [{"message": {"content": 5}}]}), "choices[0].message.content"),
        (content({"error": {"message": "no such model"}}), "no such model"),
        (endless(0), "more than 16 MiB"),
        (endless(0.01), "within 0.3 s"),
        (bomb(1024), "more than 16 MiB"),
        (lambda handler, _: handler.send(200, b"{}", {"Content-Encoding": "gzip"}), "DecodingError"),
        (cut, 'Received (13 bytes): {"choices": ['),
    ],
    ids=[
        "400",
        "500",
        "redirect",
        "html",
        "deep",
        "empty",
        "no choice",
        "number",
        "error",
        "huge",
        "slow",
        "bomb",
        "no gzip",
        "cut",
    ],
)
def test_what_stays_wrong_is_one_paragraph(make: Make, chat: ChatServer, fault: Reply, said: str) -> None:
    chat.always = fault
    with pytest.raises(ServerError) as caught:
        evaluate_server.run(make(chat, requests__timeout=0.3 if "0.3" in said else 20))
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert f"{chat.url}/v1/chat/completions" in message
    assert said in message
    assert "\n" not in message
    assert len(message) < 700


def test_nobody_is_there(make: Make, chat: ChatServer) -> None:
    config = make(chat, requests__model="tiny", requests__retries=1)
    config.server = "http://127.0.0.1:9"
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9/v1/chat/completions: ConnectError .*last of 2 tries"):
        evaluate_server.run(config)


def test_half_a_character_is_an_answer(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    chat.answer = lambda messages: "\ud83d #### 3"
    evaluate_server.run(make(chat))
    assert samples(tmp_path / "run")[0]["output"] == "? #### 3"


def test_requests_in_flight(make: Make, chat: ChatServer) -> None:
    chat.delay = 0.05
    evaluate_server.run(make(chat, requests__at_once=4))
    assert chat.most_at_once == 4


def assert_the_rest_is_asked(make: Make, chat: ChatServer, tmp_path: Path, asked_before: int) -> None:
    """The same command goes on, asks for nothing twice, and ends as one that was never stopped."""
    partial = tmp_path / "run/answers.partial.jsonl"
    kept = {tuple(one[0][key] for key in ("id", "prompt_hash")) for one in map(json.loads, partial.open())}
    assert 0 < len(kept) <= asked_before
    chat.faults, chat.requests = {}, []
    evaluate_server.run(make(chat))
    assert len(chat.requests) == 3 * NUM_ROWS - len(kept)
    evaluate_server.run(make(chat, "whole"))
    assert results_in(tmp_path / "run") == results_in(tmp_path / "whole")
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")


def test_what_a_failed_run_was_answered_is_kept(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    chat.faults = {13: status(400)}
    with pytest.raises(ServerError):
        evaluate_server.run(make(chat))
    assert_the_rest_is_asked(make, chat, tmp_path, 13 + 8)


def test_a_stop_gives_up_what_is_in_flight(
    make: Make, chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at_batch(5, AnswerLog, patch)
        with pytest.raises(Stopped, match="goes on from there"):
            evaluate_server.run(make(chat, requests__at_once=2))
    assert_the_rest_is_asked(make, chat, tmp_path, len(chat.requests))


def test_a_stop_does_not_wait_for_an_answer(make: Make, chat: ChatServer) -> None:
    def stop(handler: Any, body: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        endless(0.05)(handler, body)

    chat.always = stop
    started = time.monotonic()
    with pytest.raises(Stopped):
        evaluate_server.run(make(chat, requests__at_once=1))
    assert time.monotonic() - started < 10


COMMAND = """
import sys
from embedgrad_cli.cli.main import main

code = main(sys.argv[1:])
assert not {"torch", "transformers"} & set(sys.modules)
sys.exit(code)
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_and_never_loads_torch(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    run, chat.delay = tmp_path / "killed", 0.3
    words = [f"server={chat.url}", "template=system", "task=word-problems", "prompt=step-by-step"]
    words += ["task.split.num_test=12", "arms=[none,seed]", "requests.at_once=2", f"output_dir={run}"]
    command = [sys.executable, "-c", COMMAND, "evaluate", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(chat.requests) < 9 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = len((run / "answers.partial.jsonl").read_text().splitlines())
    assert kept >= 6
    chat.requests, chat.delay = [], 0.0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(chat.requests) == 24 - kept
    assert len(samples(run)) == 24
    command[3:] = ["evaluate", "--regrade", f"output_dir={run}", "task.extraction=strict"]
    subprocess.run(command, check=True, capture_output=True)
    assert len(chat.requests) == 24 - kept


def test_the_key_is_sent_and_kept_nowhere(
    make: Make, chat: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chat.key = "sk-SECRET-0123456789"
    monkeypatch.setenv("OUR_KEY", chat.key)
    chat.faults = {3: status(500), 5: lambda handler, _: handler.send(400, {"said": f"Bearer {chat.key}"})}
    with pytest.raises(ServerError, match="said") as caught:
        evaluate_server.run(make(chat, requests__api_key="OUR_KEY", log_level="debug"))
    chat.faults = {}
    evaluate_server.run(make(chat, requests__api_key="OUR_KEY", log_level="debug"))
    monkeypatch.setenv("OUR_KEY", "sk-WRONG-0123456789")
    with pytest.raises(ServerError, match=r"HTTP 401.*requests\.api_key=NAME") as refused:
        evaluate_server.run(make(chat, "other", requests__api_key="OUR_KEY"))
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    said = "".join((*capfd.readouterr(), str(caught.value), str(refused.value)))
    assert b"OUR_KEY" in written
    assert "SECRET" not in said + written.decode()
    assert "WRONG" not in said + written.decode()


STOPPED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"finish_reason": "length"}, "1\n\nQ: 2", "limit"),
    ({"finish_reason": "stop"}, "1", "end_of_turn"),
    ({"finish_reason": None}, "1", None),
    ({"finish_reason": "content_filter"}, "", None),
]
WITH_STOPS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"finish_reason": "stop"}, "1", None),
    ({"finish_reason": "stop", "stop_reason": None}, "1", "end_of_turn"),
    ({"finish_reason": "stop", "stop_reason": 7}, "1", "end_of_turn"),
    ({"finish_reason": "stop", "stop_reason": "\nQ:"}, "1", "stop"),
    ({"finish_reason": "length"}, "1\nQ: 2", "stop"),
    ({"finish_reason": "length"}, "1 and", "limit"),
]


@pytest.mark.parametrize(
    ("stop", "finish", "text", "ending"),
    [(None, *case) for case in STOPPED] + [(["\nQ:"], *case) for case in WITH_STOPS],
)
def test_how_an_answer_ended(
    make: Make,
    chat: ChatServer,
    tmp_path: Path,
    stop: list[str] | None,
    finish: dict[str, Any],
    text: str,
    ending: str | None,
) -> None:
    chat.finish, chat.answer = finish, lambda messages: text
    evaluate_server.run(make(chat, arms=["none"], task__stop=stop))
    line = samples(tmp_path / "run")[0]
    assert line.get("ending") == ending
    assert line["output"] == (text.partition("\nQ:")[0] if stop else text)
    assert chat.requests[0].get("stop") == stop


def test_answers_are_drawn_with_seeds_of_their_own(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    drawn = {"generation__num_samples": 3, "generation__temperature": 0.7, "generation__top_p": 0.9}
    evaluate_server.run(make(chat, arms=["seed"], **drawn))
    assert {(body["temperature"], body["top_p"]) for body in chat.requests} == {(0.7, 0.9)}
    assert len({body["seed"] for body in chat.requests}) == 3 * NUM_ROWS
    assert results_in(tmp_path / "run")["arms"]["seed"]["samples"]["num_samples"] == 3


def test_which_model_is_asked(make: Make, chat: ChatServer, tmp_path: Path) -> None:
    chat.models = ["base", "with-prompt"]
    with pytest.raises(ServerError, match=r"requests\.model: .*lists 2 models: base, with-prompt"):
        evaluate_server.run(make(chat))
    assert not (tmp_path / "run").exists()
    both = {"requests__model": "with-prompt", "texts__model": "base", "arms": ["seed", "served"]}
    evaluate_server.run(make(chat, **both))
    assert {(body["model"], len(body["messages"])) for body in chat.requests} == {("base", 2), ("with-prompt", 1)}
    assert results_in(tmp_path / "run")["model"] == "base, with-prompt"


def test_a_server_with_another_model_is_no_continuation(make: Make, chat: ChatServer) -> None:
    chat.faults = {4: status(400)}
    with pytest.raises(ServerError):
        evaluate_server.run(make(chat))
    chat.models = ["another"]
    with pytest.raises(UserError, match="server: the model that it lists has another name"):
        evaluate_server.run(make(chat))


def test_texts_may_be_asked_elsewhere(make: Make, chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the key of one server is not shown to the other."""
    chat.key = "sk-ours"
    monkeypatch.setenv("OUR_KEY", chat.key)
    with chat_server(sum_of, models=["base"]) as other:
        arms = {"arms": ["none", "served"], "requests__api_key": "OUR_KEY", "texts__server": f"{other.url}/v1/"}
        evaluate_server.run(make(chat, **arms))
        assert (len(chat.requests), len(other.requests)) == (NUM_ROWS, NUM_ROWS)
        other.key = chat.key
        with pytest.raises(ServerError, match="HTTP 401"):
            evaluate_server.run(make(chat, "again", **arms))
