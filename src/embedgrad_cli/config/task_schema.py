"""The settings of a task: where its rows are, what is made of them, how they are split and graded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedgrad_cli.config.setting import setting


@dataclass
class HubConfig:
    path: str | None = setting("data set id on the hub")
    name: str | None = setting("configuration of the data set")
    revision: str | None = setting("hub revision of the data set")


@dataclass
class SplitConfig:
    train: list[str] = setting("names of the training split; the first that exists is read")
    validation: list[str] | None = setting("names of the validation split; null holds rows out of train")
    test: list[str] | None = setting("names of the test split; null holds rows out of train")
    num_train: int | None = setting("use at most so many training examples", minimum=1)
    num_validation: int | float | None = setting("so many validation examples; below 1, a fraction", above=0)
    num_test: int | float | None = setting("so many test examples; below 1, a fraction of the rows", above=0)
    folds: int | None = setting("cut train into so many folds, of which task.fold is the test set", minimum=2)


@dataclass
class WorkedExample:
    """One solved example that is shown to the model before the query."""

    query: str = setting("its input")
    target: str = setting("its answer")


@dataclass
class TaskConfig:
    name: str = setting("name of the task, for reports")
    kind: Literal["choice", "generation"] = setting("score the choices, or generate and grade an answer")
    data_dir: str | None = setting("folder with one file per split (jsonl, json, csv, tsv, parquet)")
    hub: HubConfig = setting("where the data is when data_dir is not given")
    field: str | None = setting("key under which a json file holds its rows")
    query: str = setting("per-example input, from the row's fields: '{question}'")
    target: str = setting("text the loss is taken on, from the row's fields: '{answer}'")
    remove: str | None = setting("regular expression whose matches are removed from the target")
    target_pattern: str | None = setting("regular expression; its last match in the target is the target")
    labels: dict[str, str] | None = setting("what the target's values are called: {0: negative, 1: positive}")
    choices: list[str] | None = setting("the labels to choose from; '{field}' is the row's own")
    choices_pattern: str | None = setting("regular expression whose matches in the query are the row's own choices")
    keep: list[str] = setting("fields of the data kept with each row, for breakdowns")
    fewshot: int | list[WorkedExample] = setting(
        "worked examples before the query: so many of train, or these", minimum=0
    )
    fewshot_style: Literal["text", "turns"] = setting("before the query in its turn, or as turns of their own")
    grader: Literal["label", "last-number", "boxed"] = setting("how a generated answer is extracted and compared")
    score: Literal["sum", "mean", "normalized"] = setting("choices: log-likelihood summed, per token, or per character")
    extraction: Literal["lenient", "strict"] = setting("which of the two extractions counts as correct")
    split: SplitConfig = setting("which rows train, select and test")
    fold: int | None = setting("the fold that is the test set, from 0 to task.split.folds - 1", minimum=0)
    broken: Literal["error", "skip"] = setting("what to do with rows that are not what these settings say")
    max_new_tokens: int = setting("longest answer generated, in tokens", minimum=1)
    stop: list[str] | None = setting("texts at which a generated answer ends; it stands before them")
    too_long: Literal["error", "skip"] = setting("what to do with an example longer than the model's context")


@dataclass
class EvaluatedTaskConfig(TaskConfig):
    """`TaskConfig` where saved prompts are tested."""

    overlap: Literal["error", "exclude", "allow"] = setting("what to do with rows that trained or selected a prompt")
