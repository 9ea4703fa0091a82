"""`embedgrad tasks`: every task there is, shipped or the user's own; `tasks show NAME` goes on in `tasks_show.py`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from embedgrad_cli.cli.help import TASKS
from embedgrad_cli.config.compose import Composer, Request, config_of
from embedgrad_cli.errors import ConfigError

SENTENCE_END = re.compile(r"(?<!\bal)\.(?:\s|$)")  # not in "et al. 2013"


def main(argv: list[str]) -> int:
    """List the tasks, or show one. Returns: exit code 0.

    Raises:
        ConfigError: the command line, or a task's YAML, is wrong.
        DataError: the data of the task to be shown is wrong.
    """
    if "-h" in argv or "--help" in argv:
        print(TASKS, end="")
        return 0
    args = _parse(argv)
    if not args.words:
        print_list(args.config_dir)
        return 0
    verb, *rest = args.words
    names = [word for word in rest if "=" not in word]
    if verb != "show" or len(names) != 1 or rest[0] != names[0]:
        raise ConfigError(
            [f"tasks {' '.join(args.words)}: say `embedgrad tasks`, or `embedgrad tasks show NAME [key=value ...]`."]
        )
    config = config_of(Request("optimize", [f"task={names[0]}", *rest[1:]], args.config_dir))

    from embedgrad_cli.commands.tasks_show import show  # imports torch

    show(config)
    return 0


def print_list(config_dir: str | None = None) -> None:
    """One line per task: name, kind, where the data comes from, the first sentence of its file.

    Raises:
        ConfigError: a task's YAML does not compose; the others have been printed.
    """
    composer, problems, lines = Composer(config_dir), [], []
    for name in composer.groups()["task"]:
        try:
            cfg = composer.compose("optimize", [f"task={name}"])
        except ConfigError as error:
            problems += [f"task={name}: {problem}" for problem in error.problems]
            continue
        task: Any = OmegaConf.to_container(cfg.task, resolve=False)
        lines.append((name, str(task.get("kind")), _source(task), _description(composer.file_of("task", name))))
    widths = [max(len(line[column]) for line in lines) for column in range(3)] if lines else []
    for line in lines:
        print("  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[3]]).rstrip())
    if problems:
        raise ConfigError(problems)


def _parse(argv: list[str]) -> argparse.Namespace:
    def fail(message: str) -> Any:
        raise ConfigError([f"{message}. `embedgrad tasks --help` says how it is used."])

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = fail  # type: ignore[method-assign]
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    return parser.parse_intermixed_args(argv)


def _source(task: dict[str, Any]) -> str:
    hub = task.get("hub") or {}
    if task.get("data_dir") or not hub.get("path"):
        return str(task.get("data_dir") or "task.data_dir=DIR")
    name = hub.get("name") or ""
    return f"hub {hub['path']}" + (f" {name}" if name and "$" not in name else "")


def _description(file: Path | None) -> str:
    """The first sentence of the comment that a task's file begins with."""
    words = []
    for line in file.read_text(encoding="utf-8").splitlines() if file else []:
        if not line.startswith("#") or line.startswith("#   "):  # the command
            break
        words.append(line.lstrip("# "))
    return SENTENCE_END.split(" ".join(words))[0].strip()
