"""Checks of a config that a type cannot express: parts that belong together, and paths. No torch, no network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from embedgrad_cli import assets
from embedgrad_cli.config.evaluation_checks import check_breakdown, check_generation
from embedgrad_cli.config.fields import DEMONSTRATIONS_PLACE, QUERY_PLACE, as_texts, num_prompts, prompt_numbers
from embedgrad_cli.config.launch_checks import check_launch
from embedgrad_cli.config.objective_checks import check_objective, check_training
from embedgrad_cli.config.schema import (
    Message,
    ModelConfig,
    OptimizerConfig,
    PromptConfig,
    SearchConfig,
    SeedConfig,
    TemplateConfig,
)
from embedgrad_cli.config.task_checks import check_embedded, check_folder, check_revision, check_task
from embedgrad_cli.config.tracker_checks import check_tracker
from embedgrad_cli.guards.typed_settings import typed
from embedgrad_cli.storage.gguf_files import SUFFIX, gguf_in, named_gguf

ROLES = ("system", "user", "assistant")
DEVICE = re.compile(r"auto|cpu|mps|xpu(:\d+)?|cuda(:\d+)?")
FORMATS = ("model", "gguf", "peft", "embeds", "text", "hub")
# Names that a chat template has from elsewhere; what is fixed in front of it would hide them.
GIVEN_TO_TEMPLATES = (
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template"),
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("raise_exception", "strftime_now", "tokenize", "namespace", "range", "dict", "loop", "true", "false", "none"),
)
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_model(model: ModelConfig) -> list[str]:
    """A local folder must exist; what has no sign of a local folder is left to the hub."""
    return (
        _check_model_path(model.path)
        + check_revision("model.revision", model.revision)
        + _check_template_arguments(model.chat_template_kwargs or {})
        + _check_date(model.chat_template_date)
    )


def _check_template_arguments(arguments: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, value in arguments.items():
        key = f"model.chat_template_kwargs.{name}"
        if name in GIVEN_TO_TEMPLATES:
            problems.append(f"{key}: embedgrad and the tokenizer give this to the chat template. Leave it out.")
        elif not name.isidentifier() or name.startswith("embedgrad"):
            problems.append(f"{key}: {name!r} is no name that a chat template can read. Give one like enable_thinking.")
        elif not _is_json(value):
            problems.append(f"{key}: {value!r} is no truth value, number, text, null, or list or mapping of these.")
    return problems


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _check_date(text: str | None) -> list[str]:
    try:
        date.fromisoformat(text or "2000-01-01")
    except ValueError:
        return [f"model.chat_template_date: {text!r} is no day. Give one like 2026-11-28, or null."]
    return []


def _check_model_path(path: str) -> list[str]:
    if path.startswith(assets.PREFIX):
        return check_embedded("model.path", path)
    folder = Path(path).expanduser()
    if named_gguf(path):
        return []
    if several := gguf_in(folder):
        return [
            f"model.path: the folder {path!r} has {len(several)} GGUF files. Give one of them: "
            f"{typed('model.path', several[0])}."
        ]
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return []
        return [f"model.path: the folder {path!r} has no config.json. Give the folder that a model was saved into."]
    if folder.exists():
        return [f"model.path: {path!r} is a file, but no .gguf. Give one, or the folder that a model was saved into."]
    if path.lower().endswith(SUFFIX):
        return [
            f"model.path: there is no file {path!r}. Give an existing one; a GGUF file of the hub has to be downloaded "
            "first: hf download OWNER/NAME FILE.gguf --local-dir DIR"
        ]
    # A hub id is NAME or OWNER/NAME.
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or not path.strip():
        return [
            f"model.path: there is no folder {path!r}. Give an existing folder, or a hub id such as Qwen/Qwen2.5-0.5B."
        ]
    return []


def check_template(template: TemplateConfig, prompt: PromptConfig | SeedConfig, model: ModelConfig) -> list[str]:
    """Prompt and query must have a place in every form of the template that the model may need."""
    problems = []
    if prompt.text is None:  # has no value yet, which is reported already, or needs none
        seeds: tuple[str, ...] = ("…",) * num_prompts(template)
    else:
        seeds = as_texts(prompt.text)
    if not seeds or any(not seed.strip() for seed in seeds):
        problems.append("prompt.text: it is empty. Give the words to start from: 'prompt.text=\"Think first.\"'.")
    forms = {"template.messages": [m.content for m in template.messages], "template.text": [template.text]}
    unused = {"chat": "template.text", "plain": "template.messages"}.get(model.template)
    used: set[int] = set()
    for key, contents in forms.items():
        if key == unused:
            continue
        numbers = {number for content in contents for number in prompt_numbers(content)}
        used |= numbers
        if not numbers:
            problems.append(f"{key}: it has no place for the prompt. Write {{prompt}} where the prompt stands.")
        if not any(QUERY_PLACE in content for content in contents):
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


def check_demonstrations(prompt: PromptConfig | SeedConfig) -> list[str]:
    """Demonstrations need a text, and a place in it where there are several texts; a place needs demonstrations."""
    has_place = any(DEMONSTRATIONS_PLACE in text for text in as_texts(prompt.text or []))
    if prompt.demonstrations is None:
        wrong = f"prompt.text holds {DEMONSTRATIONS_PLACE}, and there are none. Give prompt.demonstrations=4, or so."
        return [f"prompt.demonstrations: {wrong}"] if has_place else []
    if prompt.text is None:
        return ['prompt.demonstrations: prompt.text has no value. Give prompt.text="…" or prompt=….']
    if isinstance(prompt.text, list) and not has_place:
        return [f"prompt.text: it holds several texts. Write {DEMONSTRATIONS_PLACE} into the one that is to show them."]
    return []


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


def check_search(search: SearchConfig, format: str) -> list[str]:
    """Only a text is searched for."""
    if search.budget and format != "text":
        return [f"search.budget: format={format} does not search. Leave it out, or give format=text."]
    return []


def check_data_dir(data_dir: str, format: str) -> list[str]:
    """Only a text is measured on data."""
    if format != "text":
        return [f"data_dir: format={format} reads no data. Leave it out, or give format=text."]
    return check_folder("data_dir", data_dir)


def check_push(push: str, format: str) -> list[str]:
    """Only a folder made for the hub is uploaded, and to a repository with an owner."""
    if format != "hub":
        return [f"push: format={format} is not uploaded. Leave it out, or give format=hub."]
    if REPOSITORY.fullmatch(push):
        return []
    return [f"push: {push!r} is no repository. Give its owner and name: push=OWNER/NAME."]


def check_quantize(quantize: str, format: str) -> list[str]:
    """Only a GGUF file is quantised; what types there are its program knows."""
    if format != "gguf":
        return [f"quantize: format={format} keeps weights as they are. Leave it out, or give format=gguf."]
    if re.fullmatch(r"\w+", quantize):
        return []
    return [f"quantize: {quantize!r} is no type of llama.cpp's. Give one as Q8_0 or Q4_K_M."]


# Which parts of a config a check reads. It runs if the subcommand has them and the first is right so far.
CHECKS: list[tuple[tuple[str, ...], Callable[..., list[str]]]] = [
    (("output_dir",), check_output_dir),
    (("device",), check_device),
    (("launch", "model", "device"), check_launch),
    (("model",), check_model),
    (("template", "prompt", "model"), check_template),
    (("prompt",), check_demonstrations),
    (("task",), check_task),
    (("evaluation", "task"), check_breakdown),
    (("generation", "task"), check_generation),
    (("optimizer",), check_optimizer),
    (("objective", "task"), check_objective),
    (("objective", "train"), check_training),
    (("tracker",), check_tracker),
    (("format",), check_format),
    (("search", "format"), check_search),
    (("data_dir", "format"), check_data_dir),
    (("push", "format"), check_push),
    (("quantize", "format"), check_quantize),
]


def _check_role(number: int, message: Message) -> list[str]:
    if message.role in ROLES:
        return []
    return [f"template.messages[{number}].role: {message.role!r} is not one of {', '.join(ROLES)}."]
