"""Checks of a task's settings that a type cannot express. The data itself is looked at when it is read."""

from __future__ import annotations

import re
from pathlib import Path

from embedgrad_cli import assets
from embedgrad_cli.config.fields import DATA_FIELD, PLACE
from embedgrad_cli.config.task_schema import TaskConfig, WorkedExample
from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import stays_below

HELD_OUT = ("validation", "test")
TYPED_BREAK = re.compile(r"\\[nt](?![a-z])")  # not the beginning of \nabla
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # NAME or OWNER/NAME
NOT_IN_A_NAME = re.compile(r"[<>:/\\|?*]|^\.+$")  # of a configuration: the hub's library makes a folder of it


def check_task(task: TaskConfig) -> list[str]:
    """The data's place, the fields, the choices, the splits and folds, the worked examples."""
    problems = _check_data_dir(task) + _check_patterns(task) + _check_choices(task)
    for key, text in (("task.query", task.query), ("task.target", task.target)):
        problems += _check_fields(key, text)
    return problems + _check_splits(task) + _check_folds(task) + _check_fewshot(task) + _check_stop(task)


def check_embedded(key: str, path: str) -> list[str]:
    """A path that begins with `embedded:` names something in the package."""
    try:
        assets.resolve(path)
    except UserError as error:
        return [f"{key}: {error}"]
    return []


def check_folder(key: str, path: str) -> list[str]:
    """The folder of a task's data."""
    if path.startswith(assets.PREFIX):
        return check_embedded(key, path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return []
    found = "is a file" if folder.exists() else "does not exist"
    return [f"{key}: {path!r} {found}. Give the folder that holds one file per split: {key}=DIR."]


def check_revision(key: str, revision: str | None) -> list[str]:
    """A revision is a name within the hub's cache."""
    if revision is None or (revision.strip() and stays_below(revision)):
        return []
    return [f"{key}: {revision!r} is not the name of a branch, a tag or a commit. Give {key}=COMMIT, or null."]


def _check_data_dir(task: TaskConfig) -> list[str]:
    if task.data_dir is None:
        if task.hub.path is not None:
            return _check_hub(task.hub.path, task.hub.name) + check_revision("task.hub.revision", task.hub.revision)
        return ["task.data_dir: it has no value, nor has task.hub.path. Say where the data is: task.data_dir=DIR."]
    return check_folder("task.data_dir", task.data_dir)


def _check_hub(path: str, name: str | None) -> list[str]:
    """Data of the hub is what its id says: never a folder, which the hub's library would read in its own way."""
    if not HUB_ID.fullmatch(path) or ".." in path or Path(path).is_dir():
        found = "a folder here, not" if Path(path).expanduser().is_dir() else "not"
        return [
            f"task.hub.path: {path!r} is {found} the id of a data set of the hub, OWNER/NAME. Give the folder that "
            "holds one file per split instead: task.data_dir=DIR."
        ]
    if name is not None and NOT_IN_A_NAME.search(name):
        return [f"task.hub.name: {name!r} is not the name of a configuration. Give task.hub.name=NAME, or null."]
    return []


def _check_patterns(task: TaskConfig) -> list[str]:
    problems = []
    for name in ("remove", "target_pattern", "choices_pattern"):
        pattern = getattr(task, name)
        try:
            re.compile(pattern or "")
        except re.error as error:
            problems.append(f"task.{name}: {pattern!r} is not a regular expression: {error}.")
        if pattern == "":
            problems.append(f"task.{name}: it is empty. Give a regular expression, or null.")
    return problems


def _check_choices(task: TaskConfig) -> list[str]:
    choices = task.choices or []
    if len(set(choices)) < len(choices):
        return [f"task.choices: a label occurs twice in {choices}."]
    if task.kind == "choice" and len(choices) < 2 and not (task.choices_pattern and not choices):
        return [
            "task.choices: kind=choice scores at least two labels. Give them: task.choices=[negative,positive]; or "
            "task.choices_pattern, which finds each row's own in its query."
        ]
    strangers = [label for label in (task.labels or {}).values() if choices and label not in choices]
    return [f"task.labels: {label!r} is not among task.choices, which are {choices}." for label in strangers]


def _check_fields(key: str, text: str) -> list[str]:
    if DATA_FIELD.search(text):
        return []
    return [f"{key}: {text!r} names no field of the data. Write one in braces: '{{question}}'."]


def _check_splits(task: TaskConfig) -> list[str]:
    split = task.split
    problems = [
        f"task.split.{name}: the list is empty. Name a split."
        for name in ("train", *HELD_OUT)
        if getattr(split, name) == []
    ]
    problems += [
        f"task.split.{name}: {file!r} is not in the task's folder or below it. Give the folder that holds all files, "
        f"task.data_dir=DIR, and the name without its ending from there: task.split.{name}=[NAME]."
        for name in ("train", *HELD_OUT)
        for file in getattr(split, name) or []
        if not stays_below(file)
    ]
    for name in HELD_OUT:
        size = getattr(split, f"num_{name}")
        if size is not None and size > 1 and size != int(size):
            problems.append(
                f"task.split.num_{name}: {size} is neither a whole number of rows nor a fraction between 0 and 1."
            )
        if size is None and getattr(split, name) is None and not (name == "test" and split.folds):
            problems.append(
                f"task.split.num_{name}: it has no value, and task.split.{name} names no file. Give a number of rows, "
                f"or a fraction such as 0.2, to hold out of train; or the file: task.split.{name}=[NAME]."
            )
    cut = [name for name in HELD_OUT if getattr(split, name) is None and not (name == "test" and split.folds)]
    sizes = [getattr(split, f"num_{name}") or 0 for name in cut]
    held_out = sum(size for size in sizes if size < 1)
    if held_out >= 1:
        problems.append(f"task.split.num_validation and num_test: {held_out:g} of the rows leave none for training.")
    return problems


def _check_folds(task: TaskConfig) -> list[str]:
    folds, fold = task.split.folds, task.fold
    if folds is None:
        return [] if fold is None else [f"task.fold: {fold} of how many? Give task.split.folds=5, for instance."]
    numbers = f"0 to {folds - 1}"
    problems = []
    if fold is None:
        every = ",".join(map(str, range(folds)))
        problems.append(
            f"task.fold: it has no value, but task.split.folds={folds}. Give a number from {numbers}, or run all of "
            f"them: --multirun task.fold={every}."
        )
    elif fold >= folds:
        problems.append(f"task.fold: {fold} is not one of the {folds} folds, which are {numbers}.")
    if task.split.test is not None:
        problems.append(
            f"task.split.folds: the test set cannot be a fold of train and the file {' or '.join(task.split.test)} "
            "too. Set task.split.test=null, or task.split.folds=null."
        )
    return problems


def _check_fewshot(task: TaskConfig) -> list[str]:
    if isinstance(task.fewshot, int):
        return []
    return [
        f"task.fewshot[{number}].{name}: {problem}"
        for number, example in enumerate(task.fewshot)
        for name in ("query", "target")
        if (problem := _wrong_text(example, name))
    ]


def _wrong_text(example: WorkedExample, name: str) -> str | None:
    text = getattr(example, name)
    if not text.strip():
        return "it is empty. Give the example's own text."
    found = PLACE.search(text)
    return f"it holds {found.group()}, which is a place of the template. Write it otherwise." if found else None


def _check_stop(task: TaskConfig) -> list[str]:
    problems = []
    for number, text in enumerate(task.stop or []):
        if not text:
            problems.append(f"task.stop[{number}]: it is empty, so every answer would be. Give a text, or none.")
        elif TYPED_BREAK.search(text):
            problems.append(
                f"task.stop[{number}]: {text} holds a backslash and a letter, which is no line break here. Write the "
                'task\'s YAML with "\\n" in double quotes, or a line break itself: $\'task.stop=["\\nQ:"]\' in bash.'
            )
    return problems
