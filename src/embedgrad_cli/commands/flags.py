"""What the subcommands share on the command line: help that is a module's docstring, and argparse with our errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from embedgrad_cli.config.spelling import nearest
from embedgrad_cli.errors import ConfigError


@dataclass(frozen=True)
class HelpText:
    """What a subcommand says of itself; `examples` and `flags` are indented lines."""

    about: str
    examples: str = ""
    flags: str = ""

    @classmethod
    def of(cls, docstring: str | None) -> Self:
        """Take a docstring apart at the lines `examples:` and `flags:`."""
        about, *parts = re.split(r"\n\n(examples|flags):\n", (docstring or "").strip())
        return cls(about, **dict(zip(parts[::2], parts[1::2], strict=True)))


class FlagParser(argparse.ArgumentParser):
    """argparse, except that wrong flags are a `ConfigError` and `--help` begins and ends with a module's docstring."""

    def __init__(self, docstring: str | None = None, **settings: Any) -> None:
        text = HelpText.of(docstring)
        settings = {"description": text.about, "epilog": text.examples and f"examples:\n{text.examples}"} | settings
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    @property
    def flags(self) -> list[str]:
        """The long flags, as they are typed."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def parse(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Flags and other words in any order. Returns: their values, and a problem for each flag that is not known.

        Raises:
            ConfigError: a flag lacks its value, or there is a word too many.
        """
        args, unknown = self.parse_known_intermixed_args(argv)
        problems = self.unknown_flags(unknown)
        if unknown and not problems:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return args, problems

    def unknown_flags(self, words: Iterable[str]) -> list[str]:
        """A problem for each flag among the words that nobody took; the others may be the values of these."""
        known = ", ".join(self.flags)
        return [f"{word}: there is no such flag. Flags are {known}." for word in words if word.startswith("-")]

    def misplaced_settings(self, words: Iterable[str]) -> list[str]:
        """A problem for each word KEY=VALUE that names no folder: commands with flags take no settings."""
        return [
            f"{word}: there is no such folder, and `{self.prog}` takes no such setting.{self._flag_for(word)} "
            f"`{self.prog} --help` says how it is used."
            for word in words
            if is_setting(word)
        ]

    def _flag_for(self, setting: str) -> str:
        key, value = setting.split("=", 1)
        return f" Did you mean --{key} {value}?" if f"--{key}" in self.flags else ""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}. `{self.prog} --help` says how it is used."])


def is_setting(word: str) -> bool:
    """Whether a word is KEY=VALUE, and not the folder that a sweep may have given such a name."""
    return re.match(r"[\w.]+=", word) is not None and not Path(word).exists()


def check_format(format: str, formats: Collection[str]) -> list[str]:
    """The problem of `--format`, if there is one."""
    if format in formats:
        return []
    close = nearest(format, formats)
    hint = f" Did you mean {close}?" if close else ""
    return [f"--format {format}: there is no such format.{hint} Formats are {', '.join(formats)}."]
