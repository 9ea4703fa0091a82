"""Finds the data of a task: a file per split in a folder, or the splits of a data set of the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedgrad_cli.assets import resolve
from embedgrad_cli.config.task_schema import HubConfig, TaskConfig
from embedgrad_cli.errors import DataError, cause
from embedgrad_cli.storage.hub_access import COMMIT, offline_if_out_of_reach
from embedgrad_cli.tasks.defects import Source
from embedgrad_cli.tasks.readers import read_by_number, read_file

ENDINGS = ("jsonl", "json", "csv", "tsv", "parquet")


def read_sources(task: TaskConfig) -> dict[str, Source]:
    """The sources of the splits that the task names ("train" and maybe "validation", "test").

    Raises:
        DataError: a split cannot be found or read, or two splits are the same file.
    """
    read = _folder_reader(task) if task.data_dir else _hub_reader(task)
    sources, problems = dict[str, Source](), []
    for split, names in wanted_splits(task).items():
        try:
            sources[split] = read(split, names)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    labels = [source.label for source in sources.values()]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        splits = [split for split, source in sources.items() if source.label == twice]
        raise DataError(
            f"{twice} would be both the {' and the '.join(splits)} split of task {task.name}, and they must not "
            f"share an example. Give them different names in task.split, or set task.split.{splits[-1]}=null and "
            f"task.split.num_{splits[-1]}=N to hold rows out of train."
        )
    return sources


def wanted_splits(task: TaskConfig) -> dict[str, list[str]]:
    """The candidate names of each split that is read rather than held out of train."""
    split = task.split
    named = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: names for name, names in named.items() if names}


def _folder_reader(task: TaskConfig) -> Callable[[str, Sequence[str]], Source]:
    folder = Path(resolve(str(task.data_dir)))
    if not folder.is_dir():
        raise DataError(f"task.data_dir={task.data_dir} is not a folder. {_files_needed(task)}")

    def read(split: str, names: Sequence[str]) -> Source:
        for name in names:
            found = [path for ending in ENDINGS if (path := folder / f"{name}.{ending}").is_file()]
            if len(found) > 1:
                files = " and ".join(path.name for path in found)
                raise DataError(
                    f"{folder} holds {files}: it is not clear which is the {split} split. Keep one of them."
                )
            if found:
                return replace(read_file(found[0], task.field), stem=name)  # "a/data" and "b/data" are told apart
        present = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())[:20]) or "no file"
        raise DataError(
            f"no {split} split of task {task.name} in task.data_dir={task.data_dir}: looked for "
            f"{_file_names(names)} (or {', '.join(ENDINGS[1:])}), found {present}. Rename a file, or set "
            f"task.split.{split}=[NAME]{'' if split == 'train' else '; null holds rows out of train'}."
        )

    return read


def _datasets() -> Any:
    """The library `datasets`, silent, and never running code that comes with a data set."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # its 3.x versions would ask on the terminal
    return datasets


def _hub_reader(task: TaskConfig) -> Callable[[str, Sequence[str]], Source]:
    hub = task.hub
    if not hub.path:
        raise DataError(
            f"task {task.name} has no data: neither task.data_dir nor task.hub.path is set. {_files_needed(task)}"
        )
    name = hub.path + (f", {hub.name}" if hub.name else "")
    try:
        loaded, commit = _load_from_hub(hub)
    except DataError:
        raise
    except Exception as error:  # no network, no such data set, a data set that needs its own code, a full disk
        raise DataError(
            f"task {task.name}: the data set {name} could not be loaded from the hub ({cause(error)}). "
            f"{_files_needed(task)}"
        ) from None

    def read(split: str, names: Sequence[str]) -> Source:
        found = next((name for name in names if name in loaded), None)
        if found is None:
            raise DataError(
                f"no {split} split of task {task.name} in the data set {name} of the hub: looked for "
                f"{', '.join(names)}, found {', '.join(map(str, loaded))}. Set task.split.{split}=[NAME]."
            )
        source = Source(
            f"{name}, split {found}",
            found,
            lambda defects: read_by_number(source, loaded[found], defects),
            revision=commit,
        )
        return source

    return read


def _load_from_hub(hub: HubConfig) -> tuple[Any, str | None]:
    """The splits of a data set by name, and the commit that they were read at; None if the library does not say.

    Raises:
        DataError: out of the hub's reach there is only another commit than the one that is asked for, or the id is the
            library's name for something else than a data set of the hub.
    """
    datasets = _datasets()
    with offline_if_out_of_reach(datasets.config):
        builder = datasets.load_dataset_builder(hub.path, hub.name, revision=hub.revision)
        if builder.repo_id != hub.path:  # "json", "text", …: files of the folder that the command is called in
            raise DataError(
                f"task.hub.path={hub.path} is not a data set of the hub. Give task.hub.path=OWNER/NAME, or the folder "
                "of the files: task.data_dir=DIR."
            )
        commit = builder.hash if COMMIT.fullmatch(str(builder.hash)) else None
        wanted = hub.revision if COMMIT.fullmatch(hub.revision or "") else None
        if wanted and commit != wanted:  # the library takes what it has last, without a word
            raise DataError(
                f"task.hub.revision={wanted} of the data set {hub.path} is not on this machine, and the hub is out of "
                f"reach; what is here is {commit or 'of an unknown commit'}. Connect once, give "
                f"task.hub.revision={commit or 'null'} to take it, or local files: task.data_dir=DIR."
            )
        builder.download_and_prepare()
        return builder.as_dataset(), commit


def _files_needed(task: TaskConfig) -> str:
    """How to point at local files: which names are looked for."""
    files = [f"{_file_names(names)} ({split})" for split, names in wanted_splits(task).items()]
    return (
        f"With local files, give task.data_dir=DIR, a folder that holds {' and '.join(files)}; the endings "
        f"{', '.join(ENDINGS[1:-1])} and {ENDINGS[-1]} are read as well."
    )


def _file_names(names: Sequence[str]) -> str:
    return " or ".join(f"{name}.{ENDINGS[0]}" for name in names)
