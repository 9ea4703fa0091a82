"""From a plain nested dict, as Hydra composes it, to the dataclasses of `schema`, with every problem found on the way.

Nothing here knows Hydra, and nothing heavy is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

from embedgrad_cli.config import checks
from embedgrad_cli.config.engine_checks import check_engine
from embedgrad_cli.config.evaluation_checks import check_arms
from embedgrad_cli.config.launch_checks import check_shared
from embedgrad_cli.config.schema import OBJECTIVES, EvaluateConfig, ExportConfig, OptimizeConfig
from embedgrad_cli.config.server_checks import check_keys, check_server
from embedgrad_cli.config.spelling import half_character, nearest_key, shown
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.structure import NOTHING, NotExpected, Problem, make_converter, structure, to_list

Config = OptimizeConfig | EvaluateConfig | ExportConfig
COMMANDS: dict[str, type] = {"optimize": OptimizeConfig, "evaluate": EvaluateConfig, "export": ExportConfig}
MISSING_VALUE = "???"
NO_VALUE = "it has no value yet"
ITEM = re.compile(r"\[\d+\]")  # of a list, in a key


def build(command: str, plain: Json) -> tuple[Config | None, list[str]]:
    """Turn a composed config into the dataclass of a subcommand.

    Args:
        command: optimize, evaluate or export.
        plain: nested dicts, lists and scalars; `???` stands for a value that is still to be given.

    Returns:
        The config, or None, and every problem found, each a sentence that begins with the key.
    """
    schema = COMMANDS[command]
    if plain.get("server") is not None:
        plain = _named_by_server(plain)
    parts, problems = _structure_parts(schema, plain)
    sentences = [_sentence(problem, schema) for problem in problems]
    sentences += [
        f"{key}: {text!r} holds half of a character, which UTF-8 cannot write." for key, text in _halves(plain)
    ]
    grades_only = plain.get("mode") == "regrade"
    needs_no_model = grades_only or plain.get("server") is not None  # then it need not be there
    for needed, check in checks.CHECKS:
        values = [getattr(parts, name, None) for name in needed]
        if None not in values and not (needs_no_model and check is checks.check_model):
            sentences += check(*values)
    if schema is not ExportConfig:
        sentences += check_engine(parts) + check_shared(parts)
    if schema is EvaluateConfig and parts.arms is not None:
        sentences += check_arms(parts) + check_server(parts)
        if not (grades_only or sentences):
            sentences += check_keys(parts)
    if sentences:
        return None, sentences
    config: Config = schema(**vars(parts))
    _expand_home(config)
    if isinstance(config, OptimizeConfig) and config.objective.name is None:
        config.objective.name = OBJECTIVES[config.task.kind]  # recorded is what was minimised
    return config, []


def _named_by_server(plain: Json) -> Json:
    """Settings with the server's address in place of a model's path that nobody gave: none is loaded."""
    model = plain.get("model")
    if not isinstance(model, dict) or model.get("path", MISSING_VALUE) != MISSING_VALUE:
        return plain
    return {**plain, "model": {**model, "path": str(plain["server"])}}


def _halves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Texts with half of a surrogate pair in them, which YAML can write ("\\ud83d"), each with its dotted key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _halves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _halves(inner, f"{key}[{number}]")
    elif isinstance(value, str) and half_character(value):
        yield key, value


def merge(defaults: Any, settings: Any) -> Any:
    """Nested settings over their defaults: what they do not hold has its default."""
    if not isinstance(defaults, dict) or not isinstance(settings, dict):
        return settings
    return {**defaults, **{key: merge(defaults.get(key), value) for key, value in settings.items()}}


def keys(command: str) -> Iterator[str]:
    """Every setting of a subcommand as a dotted key, in the order of the schema."""
    for name, _, _ in settings(COMMANDS[command]):
        yield name


def settings(schema: type, prefix: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Every setting below a schema class: dotted key, type, dataclass field."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        key = prefix + item.name
        if is_dataclass(hints[item.name]):
            yield from settings(hints[item.name], f"{key}.")
        else:
            yield key, hints[item.name], item


def check_value(command: str, key: str, value: Any) -> list[str]:
    """The problems of one value on its own; none if the key is not a single setting."""
    for name, kind, item in settings(COMMANDS[command]):
        if name == key:
            _, problems = _structure(value, kind, item, key)
            return [_sentence(problem, COMMANDS[command]) for problem in problems]
    return []


def _structure_parts(schema: type, plain: Json) -> tuple[Any, list[Problem]]:
    """Every part of a config by itself, so that a problem of one does not hide what the checks find in others.

    Returns: the parts under their names, None where one is wrong; and the problems.
    """
    hints, parts, given = get_type_hints(schema), SimpleNamespace(), _without_missing(plain)
    problems = [Problem(str(name), plain[name], None) for name in plain if name not in hints]
    for item in fields(schema):
        kind = hints[item.name]
        content = given.get(item.name, {} if is_dataclass(kind) else NOTHING)
        part, wrong = _structure(content, kind, item, item.name)
        setattr(parts, item.name, part)
        problems += wrong
    return parts, problems


def _structure(content: Any, kind: Any, item: Field[Any], key: str) -> tuple[Any, list[Problem]]:
    if content is NOTHING:
        return None, [Problem(key, NOTHING, "there")]
    part, problems = structure(content, kind, CONVERTER, key)
    if not problems:
        try:
            _check_range(part, item)
        except NotExpected as error:
            return None, [Problem(key, content, str(error))]
    return part, problems


def _without_missing(plain: Any) -> Any:
    """Without the keys whose value is still to be given."""
    if isinstance(plain, list):
        return [_without_missing(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {key: _without_missing(value) for key, value in plain.items() if value != MISSING_VALUE}


def _sentence(problem: Problem, schema: type) -> str:
    key = problem.key
    if problem.expected is None:
        beside = ", ".join(item.name for item in fields(_group(key, schema)))
        hint = nearest_key(key, [name for name, _, _ in settings(schema)]) or f" Known here: {beside}."
        if key == "experiment":  # what a file of this group holds are overrides of everything
            hint = " A file of experiment/ begins with the line `# @package _global_`."
        return f"{key}: there is no such setting.{hint}"
    words = f" ({_words(key, schema)})" if _words(key, schema) else ""
    if problem.found is NOTHING:
        return f"{key}: {NO_VALUE}. Give {key}=…{words}."
    return f"{key}: {shown(problem.found)} is not {problem.expected}{words}."


def _group(key: str, schema: Any) -> Any:
    """The dataclass that has the last name of a key."""
    for name in ITEM.sub("", key).split(".")[:-1]:
        inner = _dataclass_in(get_type_hints(schema).get(name))
        if inner is None:  # a point is a part of the key's last name: 1e3 in YAML is the key 1000.0
            break
        schema = inner
    return schema


def _dataclass_in(kind: Any) -> Any:
    """The dataclass that a type is made of: `Message` of `list[Message]`."""
    return kind if is_dataclass(kind) else next(filter(None, map(_dataclass_in, get_args(kind))), None)


def _words(key: str, schema: type) -> str:
    last = ITEM.sub("", key).rpartition(".")[2]
    return next((item.metadata.get("words", "") for item in fields(_group(key, schema)) if item.name == last), "")


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise NotExpected("text; write it in quotes" if value is not None else "text")


def _to_texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else to_list(value)  # one name is a list of one


def _check_range(value: Any, item: Field[Any]) -> None:
    minimum, above, maximum = (item.metadata.get(end) for end in ("minimum", "above", "maximum"))
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise NotExpected("a number")
        if minimum is not None and value < minimum:
            raise NotExpected(f"{minimum} or more")
        if above is not None and value <= above:
            raise NotExpected(f"above {above}")
        if maximum is not None and value > maximum:
            raise NotExpected(f"{maximum} or less")


CONVERTER = make_converter(text=_to_text, texts=_to_texts, check=_check_range)


def _expand_home(config: Config) -> None:
    """The shell leaves `task.data_dir=~/data` as it is, so `~` is replaced here."""
    paths = [("model", "path"), ("task", "data_dir"), ("tracker", "place")]
    paths += [("", name) for name in ("data_dir", "artifact", "output_dir")]
    for part, name in paths:
        owner = getattr(config, part, None) if part else config
        value = getattr(owner, name, None)
        if value is not None and value.startswith("~"):
            setattr(owner, name, str(Path(value).expanduser()))
