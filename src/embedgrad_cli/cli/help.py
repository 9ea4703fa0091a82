"""The overview, which needs nothing heavy; and the help of optimize, evaluate and export, from the docstrings of their
modules, the schema and the composed defaults.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from embedgrad_cli import commands
from embedgrad_cli.config.spelling import one_line

if TYPE_CHECKING:
    from embedgrad_cli.commands.flags import HelpText

OVERVIEW = """\
embedgrad adapts a frozen language model by optimising the embeddings of a prompt that a person wrote.

usage: embedgrad COMMAND [group=choice ...] [key=value ...]

commands:
  optimize   train the embeddings of a prompt on a task and compare them with the text
  evaluate   compare prompts, written or saved, on any task
  export     write a saved prompt in a form that other programs read
  inspect    what is in a saved prompt, and how far its vectors went
  compare    one table over finished runs
  report     a finished run, or several, as one HTML file
  tasks      list the tasks; `tasks show NAME` prints rendered examples and token counts

examples:
  embedgrad optimize
  embedgrad evaluate artifact=outputs/optimize/DATE_TIME/prompt.safetensors task=sst2 task.data_dir=DIR
  embedgrad export artifact=outputs/optimize/DATE_TIME/prompt.safetensors format=embeds output_dir=DIR
  embedgrad inspect outputs/optimize/DATE_TIME/prompt.safetensors
  embedgrad compare outputs/sweep
  embedgrad report outputs/sweep
  embedgrad tasks show sst2 task.data_dir=DIR prompt=sentiment

`embedgrad optimize` without arguments runs on an embedded model and task: no download, no GPU, a minute or two.

  embedgrad COMMAND --help                     groups, settings, defaults
  embedgrad --version
  eval "$(embedgrad -sc install=bash)"         completion for this shell
"""

FLAGS = """\
  --help, -h             this text
  --cfg job              print the composed config and stop
  --multirun, -m         run once for every combination of KEY=A,B,C
  --config-dir DIR       a folder of your own configs: task/NAME.yaml, experiment/NAME.yaml, ...
  --config-name NAME     another main config
  --info [WHAT]          how the config is composed (Hydra)"""
WIDTH = 110


def help_text(command: str) -> HelpText:
    """What the docstring of a command's module says, and its flags after those that every command has.

    The docstring is read from the file, because to import optimize, evaluate or export is to import torch.
    """
    import ast

    from embedgrad_cli.commands.flags import HelpText

    source = Path(commands.__path__[0], f"{command}.py").read_text(encoding="utf-8")
    text = HelpText.of(ast.get_docstring(ast.parse(source)))
    return HelpText(text.about, text.examples, "\n".join(filter(None, [FLAGS, text.flags])))


def command_help(command: str, config_dir: str | None = None, overrides: list[str] | None = None) -> str:
    """The help of a subcommand: groups with their choices, and every setting with its default.

    Args:
        command: optimize, evaluate or export.
        config_dir: a user's folder of configs; its choices are listed too.
        overrides: the defaults are shown as these leave them.

    Raises:
        ConfigError: the configs do not compose.
    """
    from omegaconf import OmegaConf

    from embedgrad_cli.config.build import COMMANDS, settings
    from embedgrad_cli.config.compose import Composer, is_the_artifacts  # Hydra is imported for this help only

    composer = Composer(config_dir)
    cfg = composer.compose(command, overrides or [])
    choices, known = cfg.hydra.runtime.choices, composer.groups()
    named = [name for name in composer.default_groups(command) if name in known]

    text = help_text(command)
    parts = [text.about, f"usage: embedgrad {command} [flags] [group=choice ...] [key=value ...]"]
    parts.append(f"examples:\n{text.examples}")
    if named:
        groups = [_group(name, choices.get(name), known[name]) for name in named]
        parts.append("groups (* is chosen now):\n" + "\n".join(groups))
    plain = OmegaConf.to_container(cfg, resolve=False)
    given = {line.lstrip("+~").partition("=")[0] for line in overrides or []}
    rows = []
    for key, kind, item in settings(COMMANDS[command]):
        own = is_the_artifacts(command, key) and not given & {key.partition(".")[0], key}
        shown = "(the artifact's)" if own else one_line(_at(plain, key))
        rows.append((f"{key}={shown}", item.metadata["words"] + _values(kind, item.metadata["words"])))
    parts.append("settings (??? is yours to give):\n" + "\n".join(_row(left, words) for left, words in rows))
    parts.append(f"flags:\n{text.flags}")
    return "\n\n".join(parts) + "\n"


def _group(name: str, chosen: str | None, choices: list[str]) -> str:
    listed = "  ".join(f"*{choice}" if choice == chosen else choice for choice in choices)
    return textwrap.fill(listed, WIDTH, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)


def _row(left: str, words: str) -> str:
    return f"  {left:<48}  {words}" if len(left) <= 48 else f"  {left}\n{'':<52}{words}"


def _values(kind: Any, words: str) -> str:
    """The words that a setting may be, in brackets, unless what is said of it names them all."""
    options = [kind, *get_args(kind)]  # `Literal[…] | None` holds a Literal
    values = [str(value) for option in options if get_origin(option) is Literal for value in get_args(option)]
    named = all(re.search(rf"\b{re.escape(value)}\b", words) for value in values)
    return "" if named else f" ({', '.join(values)})"


def _at(plain: Any, key: str) -> Any:
    """The value at a dotted key, `???` if a part of the way is missing."""
    for name in key.split("."):
        plain = plain.get(name, "???") if isinstance(plain, dict) else "???"
    return plain
