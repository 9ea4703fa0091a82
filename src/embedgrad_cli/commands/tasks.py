"""Every task with its kind, where its data comes from, and what it is; or one task as the model will read it.

examples:
  embedgrad tasks
  embedgrad tasks show gsm8k task.data_dir=DIR model=qwen2.5-0.5b-instruct template=after-query
  embedgrad tasks show bbh task.name=snarks task.data_dir=DIR task.fewshot=3
  embedgrad tasks show mine --config-dir DIR
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from embedgrad_cli.commands.flags import FlagParser
from embedgrad_cli.config.compose import Composer, Request, config_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.storage.record import Json

SHOW = """\
Print the numbers of rows, and three rendered training examples in which [prompt: ...], [query: ...] and
[target: ...] are marked, with the tokens of each part. Only the tokenizer of the model is loaded. Model, template,
prompt and task are set as for `embedgrad optimize`."""
SENTENCE_END = re.compile(r"(?<!\bal)\.(?:\s|$)")  # not in "et al. 2013"


def parser() -> FlagParser:
    """The flags, the sub-command `show`, and the help of both."""
    shown = "[group=choice ...] [key=value ...] [--config-dir DIR]"
    usage = f"embedgrad tasks [--config-dir DIR]\n       embedgrad tasks show NAME {shown}"
    tasks = FlagParser(__doc__, prog="embedgrad tasks", usage=usage)
    verbs = tasks.add_subparsers(dest="verb", prog=tasks.prog, title="commands", metavar="COMMAND")
    show = verbs.add_parser("show", help=SHOW, description=SHOW, usage=f"embedgrad tasks show NAME {shown}")
    show.add_argument("name", metavar="NAME", type=_task_name, help="a task of the list")
    show.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="groups and settings of `embedgrad optimize`"
    )
    for flags, default in ((tasks, None), (show, argparse.SUPPRESS)):  # it may stand before `show` and after
        flags.add_argument(
            "--config-dir",
            "-cd",
            default=default,
            metavar="DIR",
            help="a folder of your own configs: task/NAME.yaml, ...",
        )
    return tasks


def main(argv: Sequence[str]) -> int:
    """List the tasks, or show one. Returns: exit code 0.

    Raises:
        ConfigError: the command line, or a task's YAML, is wrong.
        DataError: the data of the task to be shown is wrong.
    """
    flags = parser()
    args, more = flags.parse_known_args(argv)
    problems = flags.unknown_flags(more)
    if problems:
        raise ConfigError(problems)
    if args.verb is None:
        print_list(args.config_dir)
        return 0
    overrides = [f"task={args.name}", *args.overrides, *more]  # argparse leaves the words behind a flag in `more`
    config = config_of(Request("optimize", overrides, args.config_dir))
    assert isinstance(config, OptimizeConfig)  # as the request says

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


def _task_name(word: str) -> str:
    if "=" in word:
        raise argparse.ArgumentTypeError(f"the name of the task goes before {word!r}")
    return word


def _source(task: Json) -> str:
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
