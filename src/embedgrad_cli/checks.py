"""Checks of a config that a type cannot express: parts that belong together, and paths. No torch, no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from embedgrad_cli import assets
from embedgrad_cli.errors import UserError
from embedgrad_cli.schema import Message, ModelConfig, OptimizerConfig, PromptConfig, TaskConfig, TemplateConfig

ROLES = ("system", "user", "assistant")
DEVICE = re.compile(r"auto|cpu|mps|xpu(:\d+)?|cuda(:\d+)?")
SLOT = re.compile(r"\{prompt(?:\.(\d+))?\}")
DATA_FIELD = re.compile(r"\{[^{}]+\}")
FORMATS = ("model", "peft", "embeds")


def check_model(model: ModelConfig) -> list[str]:
    """A local folder must exist; what has no sign of a local folder is left to the hub."""
    path = model.path
    if path.startswith(assets.PREFIX):
        return _check_embedded("model.path", path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return []
        return [f"model.path: the folder {path!r} has no config.json. Give the folder that a model was saved into."]
    if folder.exists():
        return [f"model.path: {path!r} is a file. Give the folder that a model was saved into."]
    # A hub id is NAME or OWNER/NAME.
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or not path.strip():
        return [
            f"model.path: there is no folder {path!r}. Give an existing folder, or a hub id such as Qwen/Qwen2.5-0.5B."
        ]
    return []


def check_template(template: TemplateConfig, prompt: PromptConfig, model: ModelConfig) -> list[str]:
    """Prompt and query must have a place in every form of the template that the model may need."""
    problems = []
    seeds = [prompt.text] if isinstance(prompt.text, str) else prompt.text
    if seeds is None:  # has no value yet, which is reported already
        seeds = ["…"]
    elif not seeds or any(not seed.strip() for seed in seeds):
        problems.append("prompt.text: it is empty. Give the words to start from: 'prompt.text=\"Think first.\"'.")
    forms = {"template.messages": [m.content for m in template.messages], "template.text": [template.text]}
    unused = {"chat": "template.text", "plain": "template.messages"}.get(model.template)
    used: set[int] = set()
    for key, contents in forms.items():
        if key == unused:
            continue
        numbers = {int(number or 0) for content in contents for number in SLOT.findall(content)}
        used |= numbers
        if not numbers:
            problems.append(f"{key}: it has no place for the prompt. Write {{prompt}} where the prompt stands.")
        if not any("{query}" in content for content in contents):
            problems.append(f"{key}: it has no place for the query. Write {{query}} where each example's input stands.")
        if numbers and max(numbers) >= len(seeds):
            problems.append(
                f"{key}: it asks for {{prompt.{max(numbers)}}}, but prompt.text holds {len(seeds)} text(s), counted "
                "from 0. Give prompt.text as a list with one text per number."
            )
    idle = [number for number in range(len(seeds)) if number not in used]
    if used and idle:
        problems.append(f"prompt.text: text {idle[0]} has no place in the template. Write {{prompt.{idle[0]}}} there.")
    if unused != "template.messages":
        problems += [p for number, m in enumerate(template.messages) for p in _check_role(number, m)]
    return problems


def check_task(task: TaskConfig) -> list[str]:
    """The data's place, the fields, and what the kind of task needs."""
    problems = _check_data_dir(task) + _check_choices(task)
    for key, text in (("task.query", task.query), ("task.target", task.target)):
        problems += _check_fields(key, text)
    if task.remove is not None:
        try:
            re.compile(task.remove)
        except re.error as error:
            problems.append(f"task.remove: {task.remove!r} is not a regular expression: {error}.")
    problems += [f"task.split.{name}: the list is empty. Name a split." for name in _empty_splits(task)]
    return problems


def check_optimizer(optimizer: OptimizerConfig) -> list[str]:
    """Adam's two decays."""
    if len(optimizer.betas) == 2 and all(0 <= beta < 1 for beta in optimizer.betas):
        return []
    return [f"optimizer.betas: {optimizer.betas} are not two numbers from 0 up to but not including 1."]


def check_device(device: str) -> list[str]:
    """The name only; whether the device is there is known once torch is loaded."""
    if DEVICE.fullmatch(device):
        return []
    return [f"device: {device!r} is not one of auto, cpu, cuda, cuda:N, mps."]


def check_output_dir(output_dir: str) -> list[str]:
    """A run directory may exist or not, but it cannot be a file."""
    if output_dir and not Path(output_dir).is_file():
        return []
    return [f"output_dir: {output_dir!r} is {'a file' if output_dir else 'empty'}. Give a folder; it may be a new one."]


def check_format(format: str) -> list[str]:
    """The export formats that exist."""
    if format in FORMATS:
        return []
    return [f"format: {format!r} does not exist. Formats are {', '.join(FORMATS)}."]


# Which parts of a config a check reads. It runs if the subcommand has them and the first is right so far.
CHECKS: list[tuple[tuple[str, ...], Callable[..., list[str]]]] = [
    (("output_dir",), check_output_dir),
    (("device",), check_device),
    (("model",), check_model),
    (("template", "prompt", "model"), check_template),
    (("task",), check_task),
    (("optimizer",), check_optimizer),
    (("format",), check_format),
]


def _check_embedded(key: str, path: str) -> list[str]:
    try:
        assets.resolve(path)
    except UserError as error:
        return [f"{key}: {error}"]
    return []


def _check_data_dir(task: TaskConfig) -> list[str]:
    if task.data_dir is None:
        if task.hub.path is not None:
            return []
        return ["task.data_dir: it has no value, nor has task.hub.path. Say where the data is: task.data_dir=DIR."]
    if task.data_dir.startswith(assets.PREFIX):
        return _check_embedded("task.data_dir", task.data_dir)
    folder = Path(task.data_dir).expanduser()
    if folder.is_dir():
        return []
    found = "is a file" if folder.exists() else "does not exist"
    return [f"task.data_dir: {task.data_dir!r} {found}. Give the folder that holds one file per split."]


def _check_choices(task: TaskConfig) -> list[str]:
    if task.kind != "choice":
        return []
    choices = task.choices or []
    if len(choices) < 2:
        return ["task.choices: kind=choice scores at least two labels. Give them: task.choices=[negative,positive]."]
    if len(set(choices)) < len(choices):
        return [f"task.choices: a label occurs twice in {choices}."]
    strangers = [label for label in (task.labels or {}).values() if label not in choices]
    return [f"task.labels: {label!r} is not among task.choices, which are {choices}." for label in strangers]


def _check_fields(key: str, text: str) -> list[str]:
    if DATA_FIELD.search(text):
        return []
    return [f"{key}: {text!r} names no field of the data. Write one in braces: '{{question}}'."]


def _empty_splits(task: TaskConfig) -> list[str]:
    return [name for name in ("train", "validation", "test") if getattr(task.split, name) == []]


def _check_role(number: int, message: Message) -> list[str]:
    if message.role in ROLES:
        return []
    return [f"template.messages[{number}].role: {message.role!r} is not one of {', '.join(ROLES)}."]
