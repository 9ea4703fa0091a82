"""Let a server answer every row under every arm, several requests at once, each of them once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from embedgrad_cli.config.schema import EvaluateConfig, GenerationConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.errors import ServerError
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress
from embedgrad_cli.evaluation.served.client import Client, Server, unexpected
from embedgrad_cli.evaluation.served.conversations import ServedArm
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.sample_records import Ending
from embedgrad_cli.tasks.rows import Row

log = logging.getLogger(__name__)

CHAT = "chat/completions"
TICK = 0.2  # seconds between two looks at whether a stop was asked for


def ask_arms(
    arms: Mapping[str, ServedArm],
    rows: Sequence[Row],
    config: EvaluateConfig,
    answers: AnswerLog,
    progress: Callable[[str, int], Progress],
) -> dict[str, list[list[Answer]]]:
    """The answers of every arm: `[rows][samples]`. Each is kept as soon as it is there.

    Args: progress: called with an arm's name and its number of rows as it begins; gives the arm's own.

    Raises:
        ServerError: a request failed for good.
        StopAsked: at once; requests in flight are given up.
    """

    async def ask() -> None:
        async with Client(config.requests) as client:
            for name, arm in arms.items():
                await _ask_arm(client, arm, rows, config, answers, progress(name, len(rows)))

    asyncio.run(ask())
    return {
        name: [answers[row.id, hash_] for row, hash_ in zip(rows, arm.prompt_hashes, strict=True)]
        for name, arm in arms.items()
    }


async def _ask_arm(
    client: Client,
    arm: ServedArm,
    rows: Sequence[Row],
    config: EvaluateConfig,
    answers: AnswerLog,
    progress: Progress,
) -> None:
    open_rows = [i for i, row in enumerate(rows) if (row.id, arm.prompt_hashes[i]) not in answers]
    progress(len(rows) - len(open_rows), True)
    waiting = (_ask_row(client, arm, i, rows[i], config) for i in open_rows)
    running: set[asyncio.Task[list[Answer]]] = set()
    try:
        while True:
            running |= {asyncio.create_task(one) for one in _first(waiting, config.requests.at_once - len(running))}
            if not running:
                return
            done, running = await asyncio.wait(running, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
            answered = [task.result() for task in done if task.exception() is None]
            if answered:
                answers.add(answered)
                progress(len(answered))
            for task in done:
                task.result()  # raises what it raised, now that the others are kept
            stop_if_asked()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _first(waiting: Iterator[Coroutine[Any, Any, list[Answer]]], count: int) -> list[Coroutine[Any, Any, list[Answer]]]:
    return [one for _, one in zip(range(count), waiting, strict=False)]


async def _ask_row(client: Client, arm: ServedArm, number: int, row: Row, config: EvaluateConfig) -> list[Answer]:
    answers = []
    for sample in range(config.generation.num_samples):
        body = {**arm.body(number), **_drawing(config.generation, row, sample), **_ending(config.task)}
        started = time.perf_counter()
        reply = await client.ask(arm.model.server, CHAT, body)
        seconds = round(time.perf_counter() - started, 4)
        text, tokens, ending = read_reply(reply, arm.model.server, config.task.stop or [])
        answers.append(Answer(row.id, arm.prompt_hashes[number], sample, text, tokens, seconds, ending=ending))
    return answers


def _drawing(generation: GenerationConfig, row: Row, sample: int) -> Json:
    """How an answer is drawn: the likeliest token, or with a seed of its own for every row and sample."""
    if generation.temperature == 0:
        return {"temperature": 0, "seed": generation.seed}
    digest = hashlib.sha256(f"{generation.seed}\n{row.id}\n{sample}".encode()).digest()
    own = int.from_bytes(digest[:4], "big") >> 1
    return {"temperature": generation.temperature, "top_p": generation.top_p, "seed": own}


def _ending(task: TaskConfig) -> Json:
    """Where an answer ends, apart from its own end."""
    return {"max_tokens": task.max_new_tokens, **({"stop": task.stop} if task.stop else {})}


def read_reply(reply: Json, server: Server, stops: Sequence[str]) -> tuple[str, int, Ending | None]:
    """Text, number of tokens (0 where the server does not tell) and ending of a chat's answer.

    A server that keeps a stop string in its answer, or does not stop there, is read up to it. Text and white space are
    as of answers in process.

    Raises:
        ServerError: the reply holds no answer.
    """
    try:
        choice = reply["choices"][0]
        content = choice["message"].get("content")
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        content, choice, reason = reply, {}, None
    if content is None:  # all of it were thoughts, or a call of a tool
        content = ""
    if not isinstance(content, str):
        raise unexpected(server, CHAT, reply, "text under choices[0].message.content")
    text = content.encode(errors="replace").decode()  # JSON can hold half of a character, a file cannot
    end = min((at for at in map(text.find, stops) if at >= 0), default=None)
    usage = reply.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    return (
        text[:end].strip(),
        tokens if type(tokens) is int and tokens > 0 else 0,
        "stop" if end is not None else _how_it_ended(choice, reason, bool(stops)),
    )


def _how_it_ended(choice: Json, reason: object, has_stops: bool) -> Ending | None:
    """None where the server does not say: "stop" alone may be the turn's end or, where there are any, a stop string."""
    if reason == "length":
        return "limit"
    if reason != "stop":
        return None
    if not has_stops:
        return "end_of_turn"
    if "stop_reason" not in choice:  # which vLLM gives: the string, or null or a token's id
        return None
    return "stop" if isinstance(choice["stop_reason"], str) else "end_of_turn"


def only_model(server: Server, config: EvaluateConfig, setting: str) -> str:
    """The one model that a server lists.

    Raises:
        ServerError: it cannot be asked, or lists none or several.
    """

    async def ask() -> Json:
        async with Client(config.requests) as client:
            return await client.ask(server, "models")

    reply = asyncio.run(ask())
    listed = reply.get("data")
    entries = listed if isinstance(listed, list) else []
    names = [one["id"] for one in entries if isinstance(one, dict) and isinstance(one.get("id"), str)]
    if not names:
        raise unexpected(server, "models", reply, f"model's id under data, so {setting}=NAME has to say which is asked")
    if len(names) > 1:
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise ServerError(
            f"{setting}: {server.url} lists {len(names)} models: {shown}. Say which is asked: {setting}=NAME."
        )
    return names[0]
