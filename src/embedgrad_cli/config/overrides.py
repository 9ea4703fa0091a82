"""Checks of single Hydra overrides, with a hint for the usual mistakes."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from embedgrad_cli.config.build import COMMANDS, check_value, keys, settings
from embedgrad_cli.config.spelling import nearest, nearest_key
from embedgrad_cli.guards.typed_settings import typed, typed_in_quotes

MANY = 1000  # so many values of a sweep are looked at


class OverrideChecker:
    """Sorts overrides into those that Hydra can compose and problems.

    Args:
        command: optimize, evaluate or export.
        groups: every config group with its choices.
        default_groups: the groups that this command's defaults list names.
        multirun: whether sweeps are allowed.
    """

    def __init__(
        self, command: str, groups: dict[str, list[str]], default_groups: list[str], multirun: bool = False
    ) -> None:
        self.command, self.groups, self.default_groups, self.multirun = command, groups, default_groups, multirun
        self.keys = list(keys(command))
        self.problems: list[str] = []
        self.refused: set[str] = set()  # keys of overrides that do not compose

    def check(self, lines: list[str]) -> list[str]:
        """Returns the overrides that compose, a sweep by its first value; fills `problems` and `refused`."""
        accepted = []
        parser = OverridesParser.create()
        for line in lines:
            try:
                override = parser.parse_override(line)
            except (HydraException, RecursionError):
                self.problems.append(f"{line!r} {self._grammar_hint(line)}")
                self.refused.add(line.partition("=")[0])
                continue
            found, first = self._check_override(override)
            self.problems += found
            if found:
                self.refused.add(override.key_or_group)
            else:
                accepted.append(line if first is None else f"{override.get_key_element()}={first}")
        return accepted

    def _check_override(self, override: Override) -> tuple[list[str], str | None]:
        """The problems of one override and, for a sweep, its first value as text."""
        line, key = str(override.input_line), override.key_or_group
        if override.is_hydra_override() or override.package is not None:
            return [], None  # Hydra's own affairs
        texts: list[str] | None = None
        values: list[Any] = [override.value()]
        if override.is_sweep_override():
            if not self.multirun:
                return [_sweep_hint(line, key)], None
            texts, values = _sweep(override)
        if key in self.groups and not isinstance(values[0], dict):
            problems = [p for value in values for p in self._check_choice(override, value)]
        else:
            problems = self._check_key(override)
            if not problems and not override.is_delete():
                # One value of a run is checked within the composed config; a sweep's are checked here.
                problems = [p for value in values for p in check_value(self.command, key, value)] if texts else []
        return problems, texts[0] if texts else None

    def _check_choice(self, override: Override, value: Any) -> list[str]:
        group = override.key_or_group
        if group not in self.default_groups and not override.is_add():
            if group in self._sections():
                return [f"{group}={value}: write +{group}={value}; the group is yours, and no default names it."]
            return [f"{group}: `embedgrad {self.command}` has no such group. It has {_list(self.default_groups)}."]
        choices = self.groups[group]
        wanted = value if isinstance(value, list) else [value]
        problems = []
        for name in wanted:
            if name is None or override.is_delete() or name in choices:
                continue
            hint = nearest(str(name), choices)
            problem = f"{group}: there is no {name!r}."
            problem += f" Did you mean {group}={hint}?" if hint else ""
            problem += f" There are {', '.join(choices)}."
            if not hint and (instead := _in_place_of(group, str(name))):
                problem += f" Or {instead}."
            problems.append(problem)
        return problems

    def _check_key(self, override: Override) -> list[str]:
        key = override.key_or_group
        if self.command == "evaluate" and isinstance(override.value(), dict) and key in self.groups:
            return [f"{key}: set its keys one by one, for instance {key}.KEY=VALUE."]
        if self._known(key):
            return self._check_confusion(key, override.value())
        group, value = key.partition(".")[0], override.value()
        for name in [group] if group in self.groups else self.groups:
            if isinstance(value, str) and value in self.groups[name]:
                return [f"{key}: there is no such setting. Did you mean {name}={value}?"]
        hint = nearest_key(key, self.keys)
        if not hint:
            group_hint = nearest(key, self.default_groups)
            hint = f" Did you mean {group_hint}=…?" if group_hint else ""
        return [f"{key}: there is no such setting.{hint or ' `embedgrad ' + self.command + ' --help` lists all.'}"]

    def _check_confusion(self, key: str, value: Any) -> list[str]:
        group = key.partition(".")[0]
        if key in ("model.path", "task.data_dir") and isinstance(value, str) and value in self.groups[group]:
            return [f"{key}: {value!r} is a choice of the group. Did you mean {group}={value}?"]
        return []

    def _known(self, key: str) -> bool:
        """A setting, a section of settings, or an entry of a mapping or list."""
        if key in self.keys or any(known.startswith(f"{key}.") for known in self.keys):
            return True
        open_ended = [name for name, kind, _ in settings(COMMANDS[self.command]) if re.search(r"list|dict", str(kind))]
        return any(key.startswith((f"{name}.", f"{name}[")) for name in open_ended)

    def _sections(self) -> set[str]:
        return {key.partition(".")[0] for key in self.keys if "." in key}

    def _grammar_hint(self, line: str) -> str:
        for group, choices in self.groups.items():
            if line in choices:
                return f"is not KEY=VALUE. Did you mean {group}={line}?"
        key, equals, value = line.partition("=")
        if not equals:
            choices = [choice for group in self.default_groups for choice in self.groups[group]]
            close = nearest(line, [choice for choice in choices if choice != "none"])  # which nobody means by a word
            owner = next((group for group in self.default_groups if close in self.groups[group]), None)
            return "is not KEY=VALUE." + (f" Did you mean {owner}={close}?" if owner else " Put no spaces around =.")
        if self._known(key.lstrip("+~")):
            return "cannot be read. " + _quote_hint(key, value)
        return f"cannot be read as KEY=VALUE.{nearest_key(key.lstrip('+~'), self.keys)}"


def _in_place_of(group: str, value: str) -> str | None:
    """What to write when a group was given a value that belongs to a key."""
    match group:
        case "model":
            return f"model=local {typed('model.path', value)}"
        case "task":
            return typed("task.data_dir", value)
        case "prompt":
            return f"prompt=custom {typed_in_quotes('prompt.text', value)}"
        case "template":
            return typed_in_quotes("template.text", value)
    return None


def _sweep(override: Override) -> tuple[list[str], list[Any]]:
    """The values of a sweep, as texts and as values. An interval has its two ends."""
    if override.is_interval_sweep():
        ends: Any = override.value()
        return [str(ends.start), str(ends.end)], [ends.start, ends.end]
    texts = [text for text, _ in zip(override.sweep_string_iterator(), range(MANY), strict=False)]
    values = [_unquoted(value) for value, _ in zip(override.sweep_iterator(), range(MANY), strict=False)]
    return texts, values


def _unquoted(value: Any) -> Any:
    return Override._convert_value(value)


def _sweep_hint(line: str, key: str) -> str:
    value = line.partition("=")[2]
    return f"{line!r} asks for several runs, which needs --multirun. As one value, {_quote_hint(key, value, 'write ')}"


def _quote_hint(key: str, value: str, start: str = "Write ") -> str:
    is_quoted = value.startswith(("'", '"'))  # else a quotation mark at its end is the text's
    quoted = typed_in_quotes(key, value.strip("'\"") if is_quoted else value)
    return f"{start}text in quotes within quotes: {quoted}; a list in brackets: '{key}=[a,b]'."


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
