"""Help texts. The overview imports nothing; a subcommand's help is made from the schema and the composed defaults."""

from __future__ import annotations

import textwrap
from typing import Any

from embedgrad_cli.config.spelling import one_line

OVERVIEW = """\
embedgrad adapts a frozen language model by optimising the embeddings of a prompt that a person wrote.

usage: embedgrad COMMAND [group=choice ...] [key=value ...]

commands:
  optimize   train the embeddings of a prompt on a task and compare them with the text
  evaluate   compare prompts, written or saved, on any task
  export     write a saved prompt in a form that other programs read
  inspect    what is in a saved prompt, and how far its vectors went
  compare    one table over finished runs
  tasks      list the tasks; `tasks show NAME` prints rendered examples and token counts

examples:
  embedgrad optimize
  embedgrad evaluate artifact=outputs/optimize/DATE_TIME/prompt.safetensors task=sst2 task.data_dir=DIR
  embedgrad export artifact=outputs/optimize/DATE_TIME/prompt.safetensors format=embeds output_dir=DIR
  embedgrad inspect outputs/optimize/DATE_TIME/prompt.safetensors
  embedgrad compare outputs/sweep
  embedgrad tasks show sst2 task.data_dir=DIR prompt=sentiment

`embedgrad optimize` without arguments runs on an embedded model and task: no download, no GPU, under a minute.

  embedgrad COMMAND --help                     groups, settings, defaults
  embedgrad --version
  eval "$(embedgrad -sc install=bash)"         completion for this shell
"""

INSPECT = """\
What is in an artifact: its seed text, metrics and provenance, and for every token how far its vector is from the seed's
and which tokens are nearest to it. Of the model's files only the embedding table and the tokenizer are read; if they
are not on this machine, that is said and the rest is shown. Nearest tokens are not meanings.

usage: embedgrad inspect FILE [--verify MODEL] [--format FORMAT]

examples:
  embedgrad inspect outputs/demo/prompt.safetensors
  embedgrad inspect prompt.safetensors --verify Qwen/Qwen2.5-0.5B-Instruct
  embedgrad inspect prompt.safetensors --format json

flags:
  --verify MODEL   load this model (a folder, hub id or embedded:tiny) and check that the prompt was made for it; the
                   exit code is 2 if it was not
  --format FORMAT  table (the default) or json
  --help, -h       this text
"""

COMPARE = """\
One table over finished runs of `optimize` and `evaluate`: the settings in which they differ, and what came out.

usage: embedgrad compare DIR ... [--format FORMAT] [--sort KEY] [--mixed]

A DIR is a run directory, or a folder with run directories anywhere below it. Runs without results.json are named on
stderr and left out. Runs that differ in task.fold alone share a row: their counts are summed, and the intervals and p
are computed from the sums.

examples:
  embedgrad compare outputs/sweep
  embedgrad compare outputs/a outputs/b --sort=-difference --format md
  embedgrad compare outputs --mixed --format csv > runs.csv

flags:
  --format FORMAT  table (the default), md, csv or json; csv and json have one record per row, and full precision
  --sort KEY       a column (run, optimized, difference, p, n, drift, nearest_kept) or a setting (optimizer.lr, or lr);
                   -KEY puts the largest first. The default is -candidate: the most accurate first.
  --mixed          allow runs that were tested on different rows: one table for each test set
  --help, -h       this text
"""
TASKS = """\
Every task with its kind, where its data comes from, and what it is; or one task as the model will read it.

usage: embedgrad tasks [--config-dir DIR]
       embedgrad tasks show NAME [group=choice ...] [key=value ...] [--config-dir DIR]

`show` prints the numbers of rows, and three rendered training examples in which [prompt: ...], [query: ...] and
[target: ...] are marked, with the tokens of each part. Only the tokenizer of the model is loaded. Model, template,
prompt and task are set as for `embedgrad optimize`.

examples:
  embedgrad tasks
  embedgrad tasks show gsm8k task.data_dir=DIR model=qwen2.5-0.5b-instruct template=after-query
  embedgrad tasks show bbh task.name=snarks task.data_dir=DIR task.fewshot=3
  embedgrad tasks show mine --config-dir DIR

flags:
  --config-dir DIR  a folder of your own configs: task/NAME.yaml, ...
  --help, -h        this text
"""
ABOUT = {
    "optimize": "Train the embeddings of a prompt on a task and compare them with the text on held-out examples.",
    "evaluate": "Compare prompts, written or saved, on the same rows. Seed, model, template, prompt and task are the\n"
    "artifact's own; a group or a setting named here replaces that part (a group replaces it as a whole).",
    "export": "Write a saved prompt in a form that other programs read.",
}
EXAMPLES = {
    "optimize": """\
embedgrad optimize
embedgrad optimize task=sst2 task.data_dir=DIR prompt=sentiment model=local model.path=DIR
embedgrad optimize prompt=custom 'prompt.text="Think first, then answer."' train.steps=200
embedgrad optimize --multirun optimizer.lr=0.01,0.05,0.2
embedgrad optimize task=math model=qwen2.5-math-1.5b --cfg job""",
    "evaluate": """\
embedgrad evaluate artifact=prompt.safetensors
embedgrad evaluate artifact=prompt.safetensors 'arms=[none,seed,optimized,text:"Think first.",other.safetensors]'
embedgrad evaluate model=tiny template=system task=word-problems 'arms=[none,text:"Think first."]'
embedgrad evaluate artifact=prompt.safetensors generation.num_samples=8 generation.temperature=0.7
embedgrad evaluate --regrade output_dir=outputs/evaluate/DATE_TIME task.extraction=strict
embedgrad evaluate artifact=prompt.safetensors task=sst2 task.data_dir=DIR""",
    "export": """\
embedgrad export artifact=prompt.safetensors
embedgrad export artifact=prompt.safetensors format=embeds output_dir=DIR
embedgrad export artifact=prompt.safetensors format=text search.budget=20000
embedgrad export artifact=prompt.safetensors format=hub --push OWNER/NAME""",
}
FLAGS = """\
--help, -h             this text
--cfg job              print the composed config and stop
--multirun, -m         run once for every combination of KEY=A,B,C
--config-dir DIR       a folder of your own configs: task/NAME.yaml, experiment/NAME.yaml, ...
--config-name NAME     another main config
--info [WHAT]          how the config is composed (Hydra)"""
FLAGS_OF_EVALUATE = """
--predict-only         write the answers without grading them (mode=predict-only)
--regrade              grade the answers in output_dir again, without the model (mode=regrade)"""
FLAGS_OF_EXPORT = """
--push OWNER/NAME      upload to the hub (push=OWNER/NAME)"""
WIDTH = 110


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
    from embedgrad_cli.config.compose import FROM_ARTIFACT, Composer  # Hydra is imported for this help only

    composer = Composer(config_dir)
    cfg = composer.compose(command, overrides or [])
    choices, known = cfg.hydra.runtime.choices, composer.groups()
    named = [name for name in composer.default_groups(command) if name in known]

    parts = [ABOUT[command], f"usage: embedgrad {command} [flags] [group=choice ...] [key=value ...]"]
    parts.append("examples:\n" + textwrap.indent(EXAMPLES[command], "  "))
    if named:
        groups = [_group(name, choices.get(name), known[name]) for name in named]
        parts.append("groups (* is chosen now):\n" + "\n".join(groups))
    plain = OmegaConf.to_container(cfg, resolve=False)
    given = {line.lstrip("+~").partition("=")[0] for line in overrides or []}
    rows = []
    for key, _, item in settings(COMMANDS[command]):
        part = key.partition(".")[0]
        own = command != "optimize" and part in (*FROM_ARTIFACT, "seed") and not given & {part, key}
        shown = "(the artifact's)" if own else one_line(_at(plain, key))
        rows.append((f"{key}={shown}", item.metadata["words"]))
    parts.append("settings (??? is yours to give):\n" + "\n".join(_row(left, words) for left, words in rows))
    flags = FLAGS + {"evaluate": FLAGS_OF_EVALUATE, "export": FLAGS_OF_EXPORT}.get(command, "")
    parts.append("flags:\n" + textwrap.indent(flags, "  "))
    return "\n\n".join(parts) + "\n"


def _group(name: str, chosen: str | None, choices: list[str]) -> str:
    listed = "  ".join(f"*{choice}" if choice == chosen else choice for choice in choices)
    return textwrap.fill(listed, WIDTH, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)


def _row(left: str, words: str) -> str:
    return f"  {left:<48}  {words}" if len(left) <= 48 else f"  {left}\n{'':<52}{words}"


def _at(plain: Any, key: str) -> Any:
    """The value at a dotted key, `???` if a part of the way is missing."""
    for name in key.split("."):
        plain = plain.get(name, "???") if isinstance(plain, dict) else "???"
    return plain
