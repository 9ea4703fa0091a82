"""From a plain nested dict, as Hydra composes it, to the dataclasses of `schema`, with every problem found on the way.

Nothing here knows Hydra, and nothing heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from embedgrad_cli.config import checks
from embedgrad_cli.config.evaluation_checks import check_arms
from embedgrad_cli.config.schema import EvaluateConfig, ExportConfig, OptimizeConfig
from embedgrad_cli.config.spelling import nearest, nearest_key, shown

Config = OptimizeConfig | EvaluateConfig | ExportConfig
COMMANDS: dict[str, type] = {"optimize": OptimizeConfig, "evaluate": EvaluateConfig, "export": ExportConfig}
MISSING_VALUE = "???"
NO_VALUE = "it has no value yet"


def build(command: str, plain: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """Turn a composed config into the dataclass of a subcommand.

    Args:
        command: optimize, evaluate or export.
        plain: nested dicts, lists and scalars; `???` stands for a value that is still to be given.

    Returns:
        The config, or None, and every problem found, each a sentence that begins with the key.
    """
    builder = _Builder(list(keys(command)))
    config = builder.section(COMMANDS[command], plain, "")
    grades_only = plain.get("mode") == "regrade"  # then the model need not be there any more
    for needed, check in checks.CHECKS:
        if builder.sound(config, needed) and not (grades_only and check is checks.check_model):
            builder.problems += check(*(getattr(config, name) for name in needed))
    if isinstance(config, EvaluateConfig) and builder.sound(config, ("arms",)):
        builder.problems += check_arms(config)
    if builder.problems:
        return None, builder.problems
    _expand_home(config)
    return config, []


def over(defaults: Any, settings: Any) -> Any:
    """Nested settings over their defaults: what they do not hold has its default."""
    if not isinstance(defaults, dict) or not isinstance(settings, dict):
        return settings
    return {**defaults, **{key: over(defaults.get(key), value) for key, value in settings.items()}}


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
            builder = _Builder([])
            builder.setting(kind, item, value, key)
            return builder.problems
    return []


class _WrongError(Exception):
    """One value is not what its type says; the message is what it should have been."""


@dataclass
class _Builder:
    """Walks the schema beside the values and gathers what is wrong."""

    known: list[str]
    problems: list[str] = field(default_factory=list)
    wrong_keys: list[str] = field(default_factory=list)

    def report(self, key: str, what: str) -> None:
        self.wrong_keys.append(key)
        self.problems.append(f"{key}: {what}")

    def sound(self, config: Any, needed: tuple[str, ...]) -> bool:
        """Whether the parts that a check reads exist, and the first of them has no problem of its own."""
        wrong = {key.partition(".")[0] for key in self.wrong_keys}
        return needed[0] not in wrong and all(getattr(config, name, None) is not None for name in needed)

    def section(self, schema: type, plain: Any, prefix: str) -> Any:
        """One dataclass from one dict. Wrong values are reported and left None."""
        if not isinstance(plain, dict):
            self.report(
                prefix.rstrip("."), f"{shown(plain)} is not a group of settings; its keys are {_names(schema)}."
            )
            return None
        hints = get_type_hints(schema)
        for name in plain:
            if name not in hints:
                hint = nearest_key(f"{prefix}{name}", self.known) or f" Known here: {_names(schema)}."
                self.report(f"{prefix}{name}", f"there is no such setting.{hint}")
        values = {}
        for item in fields(schema):
            key, kind = prefix + item.name, hints[item.name]
            value = plain.get(item.name, MISSING_VALUE)
            if is_dataclass(kind) and isinstance(kind, type):
                values[item.name] = self.section(kind, {} if value == MISSING_VALUE else value, f"{key}.")
            else:
                values[item.name] = self.setting(kind, item, value, key)
        return schema(**values)

    def setting(self, kind: Any, item: Field[Any], value: Any, key: str) -> Any:
        """One value of the given type within the field's range."""
        words = item.metadata["words"]
        if value is MISSING or (isinstance(value, str) and value == MISSING_VALUE):
            self.report(key, f"{NO_VALUE}. Give {key}=… ({words}).")
            return None
        try:
            converted = self.convert(kind, value, key)
            _check_range(converted, item)
        except _WrongError as wrong:
            self.report(key, f"{shown(value)} is not {wrong} ({words}).")
            return None
        return converted

    def convert(self, kind: Any, value: Any, key: str) -> Any:
        """The value as the type; raises `_WrongError` with what was expected."""
        origin = get_origin(kind)
        if origin in (Union, UnionType):
            return self._convert_union(get_args(kind), value, key)
        if origin is Literal:
            return _convert_choice(get_args(kind), value)
        if origin is list:
            return self._convert_list(get_args(kind)[0], value, key)
        if origin is dict:
            if not isinstance(value, dict):
                raise _WrongError("a mapping such as {0: negative, 1: positive}")
            return {_convert_text(k): _convert_text(v) for k, v in value.items()}
        if is_dataclass(kind) and isinstance(kind, type):
            return self.section(kind, value, f"{key}.")
        return SCALARS[kind](value)

    def _convert_union(self, kinds: tuple[Any, ...], value: Any, key: str) -> Any:
        if value is None and NoneType in kinds:
            return None
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if isinstance(value, str) and value in words:
            return value
        options = [kind for kind in kinds if kind is not NoneType and get_origin(kind) is not Literal]
        if int in options and float in options:
            return _convert_number(value)
        fitting = [kind for kind in options if (get_origin(kind) is list) == isinstance(value, list)]
        try:
            return self.convert((fitting or options)[0], value, key)
        except _WrongError as wrong:
            raise _WrongError(" or ".join([str(wrong), *words])) from None

    def _convert_list(self, kind: Any, value: Any, key: str) -> list[Any]:
        if isinstance(value, str | dict) or value is None:
            if isinstance(value, str) and kind is str:
                return [value]  # one name is a list of one
            raise _WrongError("a list such as [a, b]")
        if not isinstance(value, list):
            raise _WrongError("a list")
        return [self.convert(kind, item, f"{key}[{number}]") for number, item in enumerate(value)]


def _convert_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _WrongError("text; write it in quotes" if value is not None else "text")


def _convert_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _WrongError("a number")
    return float(value)


def _convert_int(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongError("a whole number")
    return value


def _convert_number(value: Any) -> int | float:
    number = _convert_float(value)
    return int(number) if number.is_integer() else number


def _convert_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongError("true or false")
    return value


SCALARS: dict[Any, Callable[[Any], Any]] = {
    str: _convert_text,
    int: _convert_int,
    float: _convert_float,
    bool: _convert_bool,
}


def _convert_choice(choices: tuple[str, ...], value: Any) -> str:
    if value in choices and isinstance(value, str):
        return value
    hint = nearest(str(value), choices)
    raise _WrongError(f"one of {', '.join(choices)}" + (f"; did you mean {hint}" if hint else ""))


def _check_range(value: Any, item: Field[Any]) -> None:
    minimum, above, maximum = (item.metadata[end] for end in ("minimum", "above", "maximum"))
    if isinstance(value, int | float):
        if minimum is not None and value < minimum:
            raise _WrongError(f"{minimum} or more")
        if above is not None and value <= above:
            raise _WrongError(f"above {above}")
        if maximum is not None and value > maximum:
            raise _WrongError(f"{maximum} or less")


def _expand_home(config: Config) -> None:
    """The shell leaves `task.data_dir=~/data` as it is, so `~` is replaced here."""
    paths = [("model", "path"), ("task", "data_dir"), ("", "data_dir"), ("", "artifact"), ("", "output_dir")]
    for part, name in paths:
        owner = getattr(config, part, None) if part else config
        value = getattr(owner, name, None)
        if value is not None and value.startswith("~"):
            setattr(owner, name, str(Path(value).expanduser()))


def _names(schema: type) -> str:
    return ", ".join(item.name for item in fields(schema))
