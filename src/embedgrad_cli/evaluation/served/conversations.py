"""What a server is sent: for every arm and row a chat request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from embedgrad_cli.config.arm_spec import parse_arm
from embedgrad_cli.config.fields import QUERY, QUERY_PLACE, as_texts, prompt_number, seeds_of
from embedgrad_cli.config.schema import EvaluateConfig, TemplateConfig
from embedgrad_cli.core.text.messages import messages_of
from embedgrad_cli.core.text.rendering_check import Messages
from embedgrad_cli.evaluation.served.client import Server
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.server_record import AskedArm
from embedgrad_cli.tasks.rows import Row


@dataclass(frozen=True)
class Model:
    """A model of a server."""

    server: Server
    name: str


@dataclass(frozen=True)
class ServedArm:
    """One prompt under evaluation by chat.

    Args:
        messages: of every row.
        extra: further keys of each request.
    """

    name: str
    model: Model
    messages: list[Messages]
    extra: Json

    def body(self, row: int) -> Json:
        """The request for a row, but for how its answer is drawn and where it ends."""
        return {"model": self.model.name, "messages": self.messages[row], **self.extra}

    @cached_property
    def prompt_hashes(self) -> list[str]:
        """A sha256 per row of the address and the request: equal hashes, equal question."""
        return [
            hashlib.sha256(json.dumps([self.model.server.url, self.body(row)], sort_keys=True).encode()).hexdigest()
            for row in range(len(self.messages))
        ]

    def record(self, rows: Sequence[Row]) -> AskedArm:
        """Where it was asked, and the first row as it was sent."""
        return AskedArm(server=self.model.server.url, model=self.model.name, row=rows[0].id, messages=self.messages[0])


def served_arms(
    config: EvaluateConfig, template: TemplateConfig, rows: Sequence[Row], models: Mapping[str, Model]
) -> dict[str, ServedArm]:
    """The arms by name.

    Args:
        template: with its worked examples.
        models: that the arms ask, by the arms' names.
    """
    arms = {}
    for item in config.arms:
        spec = parse_arm(item)
        # The server's own chat template fixes what it is told for its prompt.
        told = None if spec.kind == "served" else config.model.chat_template_kwargs
        extra = {**({"chat_template_kwargs": told} if told else {}), **(config.requests.extra or {})}
        arms[spec.name] = ServedArm(
            spec.name, models[spec.name], conversations(config, template, rows, spec.name), extra
        )
    return arms


def conversations(config: EvaluateConfig, template: TemplateConfig, rows: Sequence[Row], arm: str) -> list[Messages]:
    """The messages of every row under an arm. `served` sends the query alone: the rest is with the server."""
    spec = parse_arm(arm)
    if spec.kind == "served":
        role = next(message.role for message in template.messages if QUERY_PLACE in message.content)
        return [[{"role": role, "content": row.query}] for row in rows]
    texts = as_texts(spec.value) if spec.kind == "text" else seeds_of(config.prompt)

    def of_row(row: Row) -> Messages:
        return messages_of(
            template,
            lambda name: row.query if name == QUERY else texts[prompt_number(name)],
            has_prompt=spec.kind != "none",
        )

    return [of_row(row) for row in rows]


def conversations_digest(arms: Mapping[str, Sequence[Messages]]) -> str:
    """A sha256 over all that the arms send."""
    total = hashlib.sha256()
    for name, messages in arms.items():
        total.update(json.dumps([name, messages]).encode())
    return total.hexdigest()
