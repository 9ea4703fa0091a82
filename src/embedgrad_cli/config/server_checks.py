"""Checks of what concerns a server that is asked: addresses, keys, and the arms that a chat can carry. No network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from embedgrad_cli.config.arm_spec import ArmSpec, parse_arm
from embedgrad_cli.config.schema import EvaluateConfig, RequestsConfig, TextsConfig

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Keys of a request that other settings say.
TAKEN = ("model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "stream")
# Why an arm cannot be asked by chat, and what can.
NOT_BY_CHAT = {
    "bare": "it is plain text without a chat template, and a server is asked by chat. Leave it out.",
    "optimized": (
        "its vectors stand in a file here, and a chat sends texts. Write served, for a server that holds the prompt "
        "(export format=model); or evaluate without server."
    ),
}
NOT_BY_CHAT["artifact"] = NOT_BY_CHAT["optimized"]


def check_server(config: EvaluateConfig) -> list[str]:
    """What can be asked of a server, and what cannot do without one."""
    arms = _arms(config)
    if config.server is None:
        return _without_server(config, arms)
    problems = _check_url("server", config.server)
    problems += [f"arms: {arm.name!r} with server: {NOT_BY_CHAT[arm.kind]}" for arm in arms if arm.kind in NOT_BY_CHAT]
    if config.requests is not None:
        problems += _check_requests(config.requests)
    if config.texts is not None:
        problems += _check_texts(config.texts, arms)
    if config.task is not None and config.task.kind == "choice":
        problems.append(
            "task.kind: choice compares the likelihoods of labels, which a chat does not tell. With "
            "task.kind=generation task.grader=label the server writes its answer, and the label in it is graded: "
            "another measure than that of scored choices."
        )
    if config.model is not None and config.model.template == "plain":
        problems.append("model.template: plain is no conversation, and a server is asked by chat. Leave it out.")
    return problems


def check_keys(config: EvaluateConfig) -> list[str]:
    """The environment variables that hold the servers' keys; what is in them is told to nobody."""
    return [
        problem
        for key, name in (("requests.api_key", config.requests.api_key), ("texts.api_key", config.texts.api_key))
        if name is not None and (problem := _check_key(key, name))
    ]


def _arms(config: EvaluateConfig) -> list[ArmSpec]:
    arms = []
    for item in config.arms or []:
        try:
            arms.append(parse_arm(item))
        except ValueError:
            continue  # which `check_arms` says
    return arms


def _without_server(config: EvaluateConfig, arms: list[ArmSpec]) -> list[str]:
    if any(arm.kind == "served" for arm in arms):
        return ["arms: served is asked of a server. Give its address: server=http://127.0.0.1:8000"]
    given = [f"texts.{name}" for name, value in _values(config.texts).items() if value is not None]
    given += ["requests.model"] if _values(config.requests).get("model") is not None else []
    return [f"{key}: no server is asked. Give its address too: server=http://127.0.0.1:8000" for key in given]


def _values(group: object) -> Mapping[str, Any]:
    return {} if group is None else vars(group)


def _check_url(key: str, url: str) -> list[str]:
    """An address without what must not stand in files: a password, or a key among the arguments."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or any(character.isspace() for character in url):
        return [f"{key}: {url!r} is no address. Give one like {key}=http://127.0.0.1:8000"]
    if "@" in parts.netloc or parts.query or parts.fragment:
        variable = "requests.api_key" if key == "server" else "texts.api_key"
        return [
            f"{key}: the address of {parts.hostname} holds a user, a password or arguments, which files would "
            f"keep. Leave them out, and name the environment variable that holds the key: {variable}=NAME."
        ]
    return []


def _check_requests(requests: RequestsConfig) -> list[str]:
    return [
        f"requests.extra.{name}: other settings say it (task.max_new_tokens, task.stop, generation, requests.model). "
        "Leave it out."
        for name in requests.extra or {}
        if name in TAKEN
    ]


def _check_texts(texts: TextsConfig, arms: list[ArmSpec]) -> list[str]:
    """A model that is served with its prompt reads that beside any text it is sent."""
    problems = [] if texts.server is None else _check_url("texts.server", texts.server)
    written = [arm.name for arm in arms if arm.kind in ("none", "seed", "text")]
    if written and texts.server is None and texts.model is None and any(arm.kind == "served" for arm in arms):
        problems.append(
            f"arms: {', '.join(written)} would be asked of the model that serves the prompt, which adds it to every "
            "conversation. Name one without it, texts.server=URL or texts.model=NAME (or the same again, if it adds "
            "nothing to conversations of this kind)."
        )
    if texts.api_key is not None and texts.server is None:
        problems.append("texts.api_key: texts.server has no value, and server has its key from requests.api_key.")
    return problems


def _check_key(setting: str, name: str) -> str | None:
    # What was given may be the key itself: it is not repeated.
    if not VARIABLE.fullmatch(name) or name not in os.environ:
        return f"{setting}: there is no environment variable of that name. Give the name of one that holds the key."
    value = os.environ[name].strip()
    if not value or not value.isascii() or not value.isprintable():
        return f"{setting}: the environment variable {name} is empty or holds what no key has (line breaks, say)."
    return None
