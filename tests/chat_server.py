"""A server on loopback that answers chats as OpenAI's API does, and misbehaves as a test asks it to."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", dict[str, Any]], None]


@dataclass
class ChatServer:
    """What a test may change while it runs, and what was asked.

    Args:
        answer: of a conversation, as text.
        faults: for the n-th request to the chat (from 0), another reply than an answer.
        key: that requests must carry.
    """

    answer: Callable[[list[dict[str, str]]], str]
    models: list[str] = field(default_factory=lambda: ["tiny"])
    faults: dict[int, Reply] = field(default_factory=dict)
    always: Reply | None = None
    key: str | None = None
    finish: dict[str, Any] = field(default_factory=lambda: {"finish_reason": "stop"})
    requests: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    delay: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def chat(self) -> ChatServer:
        return self.server.chat  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.send(404, {"error": "no such route"})
        self.send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.chat.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": "no such route"})
        if self.chat.key is not None and self.headers["Authorization"] != f"Bearer {self.chat.key}":
            return self.send(401, {"error": {"message": f"wrong key: {self.headers['Authorization']}"}})
        with self.chat.lock:
            number = len(self.chat.requests)
            self.chat.requests.append(body)
            self.chat.at_once += 1
            self.chat.most_at_once = max(self.chat.most_at_once, self.chat.at_once)
        try:
            time.sleep(self.chat.delay)
            reply = self.chat.faults.get(number, self.chat.always or answer)
            reply(self, body)
        finally:
            with self.chat.lock:
                self.chat.at_once -= 1

    def send(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def answer(handler: Handler, body: dict[str, Any]) -> None:
    text = handler.chat.answer(body["messages"])
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, **handler.chat.finish}
    usage = {"prompt_tokens": 9, "completion_tokens": len(text.split()), "total_tokens": 9 + len(text.split())}
    handler.send(200, {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


def status(code: int, headers: dict[str, str] | None = None) -> Reply:
    return lambda handler, _: handler.send(code, {"error": {"message": f"fault {code}"}}, headers)


def content(data: Any) -> Reply:
    return lambda handler, _: handler.send(200, data)


def bomb(megabytes: int) -> Reply:
    """As many megabytes of zeros, packed into a thousandth of them."""
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])
    return lambda handler, _: handler.send(200, packed, {"Content-Encoding": "gzip"})


def cut(handler: Handler, _: dict[str, Any]) -> None:
    """The connection is lost in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def endless(pause: float) -> Reply:
    """An answer that never ends: a kilobyte after another, or one byte now and then."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            handler.wfile.write(b"words without end ")
            for _number in range(10**6):
                handler.wfile.write(b"x" if pause else b"x" * 65536)
                handler.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass  # the client has left

    return reply


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that have left are what these tests are about."""


@contextmanager
def chat_server(answer: Callable[[list[dict[str, str]]], str], **settings: Any) -> Iterator[ChatServer]:
    chat = ChatServer(answer, **settings)
    server = Server(("127.0.0.1", 0), Handler)
    server.chat = chat  # type: ignore[attr-defined]
    chat.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
