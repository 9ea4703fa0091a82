"""Requests to an OpenAI-compatible server: tried again where that may help, and bounded in time and in size.

async with Client(config.requests) as client:
    reply = await client.ask(endpoint, "chat/completions", {"model": endpoint.model, "messages": […]})
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from embedgrad_cli.config.schema import RequestsConfig
from embedgrad_cli.errors import ServerError
from embedgrad_cli.storage.record import Json

log = logging.getLogger(__name__)

LARGEST = 16 * 2**20  # bytes of a reply
SHOWN = 200  # characters of one, in a message
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
MEND = {
    400: "Change what the server does not accept.",
    401: "Name the environment variable that holds its key: requests.api_key=NAME, texts.api_key=NAME.",
    404: "Give the address that stands before /chat/completions, and the name of a model that it has.",
}
MEND[403], MEND[422] = MEND[401], MEND[400]
GOES_ON = "Answers so far are kept, and the same command goes on."
IS_IT = "Give the address of an OpenAI-compatible server."


@dataclass(frozen=True)
class Server:
    """An address that ends as `/v1` does, and the key that it wants, which is shown nowhere."""

    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, address: str, key: str | None = None) -> Server:
        """That of an address as users write it: with or without `/v1`, or with the route behind it."""
        url = address.rstrip("/").removesuffix("/chat/completions")
        return cls(url if urlsplit(url).path else f"{url}/v1", key)


class Failed(Exception):
    """A try that may be repeated, and the seconds that the server asks to wait before that."""

    def __init__(self, why: str, received: bytes, pause: float | None = None) -> None:
        super().__init__(why)
        self.why, self.received, self.pause = why, received, pause


class Client:
    """Asks servers, as one connection pool.

    Args: config: how many requests are in flight, how long each may take, and how often it is tried again.
    """

    def __init__(self, config: RequestsConfig) -> None:
        self._config, self._retried = config, 0
        # `timeout` is that of a whole reply, below: one that arrives byte by byte is as late as one that does not.
        limits = httpx2.Limits(max_connections=config.at_once)
        headers = {"Accept-Encoding": "identity"}
        self._http = httpx2.AsyncClient(timeout=None, limits=limits, headers=headers, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, server: Server, route: str, body: Json | None = None) -> Json:
        """The JSON object that a server replies: to a GET without a body, else to a POST.

        Raises:
            ServerError: names the address and what was received: the server refused, the last try failed, or the reply
                is too large or no JSON object.
        """
        url = f"{server.url}/{route}"
        for number in range(self._config.retries + 1):
            try:
                received = await self._try(server, url, body)
                break
            except Failed as failed:
                if number == self._config.retries:
                    tries = f" (the last of {number + 1} tries)" * (number > 0)
                    raise _error(server, url, f"{failed.why}{tries}", failed.received, GOES_ON) from None
                await self._pause(url, failed, number)
        try:
            reply = json.loads(received)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise _error(server, url, "what it sent is no JSON object", received, IS_IT)
        return reply

    async def _try(self, server: Server, url: str, body: Json | None) -> bytes:
        received = bytearray()
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        method = "GET" if body is None else "POST"
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                self._http.stream(method, url, json=body, headers=headers) as response,
            ):
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > LARGEST:
                        what = f"it sent more than {LARGEST >> 20} MiB, where a chat's answer was asked for"
                        raise _error(server, url, what, received, IS_IT)
        except TimeoutError:
            why = f"no whole reply came within {self._config.timeout:g} s (requests.timeout)"
            raise Failed(why, bytes(received)) from None
        except httpx2.RequestError as error:
            raise Failed(" ".join(f"{type(error).__name__} {error}".split()), bytes(received)) from None
        code = response.status_code
        if code in (408, 425, 429) or code >= 500:
            raise Failed(f"HTTP {code}", bytes(received), _seconds(response.headers.get("Retry-After")))
        if code != 200:
            raise _error(server, url, f"HTTP {code}", received, MEND.get(code, IS_IT))
        return bytes(received)

    async def _pause(self, url: str, failed: Failed, number: int) -> None:
        """Twice as long after every try, unless the server says how long; never the same for all that wait."""
        pause = FIRST_PAUSE * 2**number if failed.pause is None else failed.pause
        pause = min(pause * random.uniform(1, 1.25), LONGEST_PAUSE)
        level = logging.INFO if self._retried else logging.WARNING  # the first of them tells the user
        log.log(level, "%s: %s; trying again in %.1f s", url, failed.why, pause)
        self._retried += 1
        await asyncio.sleep(pause)


def unexpected(server: Server, route: str, reply: Json, wanted: str) -> ServerError:
    """The error for a reply that is JSON, and not what was asked for."""
    text = json.dumps(reply, ensure_ascii=False).encode(errors="replace")
    return _error(server, f"{server.url}/{route}", f"the reply has no {wanted}", text, IS_IT)


def _error(server: Server, url: str, what: str, received: bytes | bytearray, mend: str) -> ServerError:
    return ServerError(f"{url}: {what}. {_received(server, received)} {mend}")


def _received(server: Server, received: bytes | bytearray) -> str:
    """The beginning of what came, on one line and without the key, should the server repeat it."""
    if not received:
        return "Nothing was received."
    text = bytes(received[: 4 * SHOWN]).decode(errors="replace")
    if server.key:
        text = text.replace(server.key, "…")
    text = "".join(character if character.isprintable() else "·" for character in " ".join(text.split()))
    more = "…" if len(text) > SHOWN or len(received) > 4 * SHOWN else ""
    return f"Received ({len(received):,} bytes): {text[:SHOWN]}{more}"


def _seconds(header: Any) -> float | None:
    """`Retry-After` in seconds; a date, which is as well allowed, is not read."""
    try:
        seconds = float(header)
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None
