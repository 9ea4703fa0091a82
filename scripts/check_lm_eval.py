"""Choices scored by embedgrad and by EleutherAI's lm-evaluation-harness: the same rows, compared one by one.

    python scripts/check_lm_eval.py [--task reviews]
    python scripts/check_lm_eval.py --task sst2 --data-dir DIR [--model FOLDER] [--json FILE]

The harness runs as its own program, in its own environment (`make test-lm-eval` makes it). It is given the files of
the task, the model's folder and a task in YAML whose `doc_to_text` is the conversation that embedgrad renders for the
arm; it reads, fills, tokenises and scores on its own. embedgrad answers by the code of `embedgrad evaluate`. Rows are
matched by their text, because embedgrad leaves out repeated and contradictory ones.

The harness moves white space at the end of a context to the answer ("assistant\\n" + "negative" is scored as
"\\nnegative"), which adds the same number to every choice of a row. So what is compared is the choice, its grade, and
the scores less their mean over the row's choices. Choice and grade are compared by both rules: `task.score=sum` with
the harness's `acc`, `normalized` with its `acc_norm`. The exit code is 1 if in an arm fewer than 99 % of the rows have
the same choice and grade by either, or fewer than 99 % the same scores, or a row of embedgrad's is not among the
harness's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml
from rich.console import Console
from rich.table import Table

from embedgrad_cli import assets
from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.scoring import score_choices
from embedgrad_cli.core.text.marked_tokens import token_ids
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.evaluation.validation import answer_and_grade
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.tasks.load import Row, load
from embedgrad_cli.tasks.splits import normalise
from methods.problem import compose

ROOT = Path(__file__).parents[1]
NEEDED_AGREEMENT = 0.99
ROUNDING = 1e-3  # scores closer than this are the same; so close, choices may come out in either order


@dataclass(frozen=True)
class Source:
    """How the harness finds the rows of a task, and which of embedgrad's splits hold the same rows.

    `task`, `labels` and `text` make another task of the rows of one: other labels, and a plain text to score them in.
    """

    prompt: str
    splits: tuple[str, ...]
    file: str
    loader: str
    query: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    labels: dict[str, str] | None = None
    text: str | None = None


TAB_SEPARATED = {"delimiter": "\t", "quoting": 3}  # no quoting: a quotation mark is part of the text
ALL = ("train", "validation", "test")
# Labels of several tokens and different lengths, in a plain text that ends in a blank.
VERDICTS = {"negative": "It was negative and not to be recommended", "positive": "It was positive"}
TASKS = {
    "reviews": Source("sentiment", ("test",), "test.jsonl", "json", "review", "label"),
    "verdicts": Source(
        "sentiment",
        ("test",),
        "test.jsonl",
        "json",
        "review",
        "{{ ['negative', 'positive'].index(label) }}",
        task="reviews",
        labels=VERDICTS,
        text="{prompt}\n\nReview: {query}\nVerdict: ",
    ),
    "causes": Source("causal-judgement", ("test",), "test.jsonl", "json", "story", "answer"),
    "sst2": Source("sentiment", ("test",), "validation.tsv", "csv", "sentence", "label", TAB_SEPARATED),
    "causal-judgement": Source(
        "causal-judgement", ALL, "causal_judgement.json", "json", "input", "target", {"field": "examples"}
    ),
}


@dataclass(frozen=True)
class Answer:
    """One row answered: a score per choice, and per choice the token ids of conversation and choice together.

    `choice` and `correct` are by the sum of log-likelihoods, those that begin with `norm_` by its share per character.
    """

    query: str
    choice: str
    correct: bool
    scores: list[float]
    tokens: list[list[int]]
    norm_choice: str = ""
    norm_correct: bool = False

    @property
    def centred(self) -> list[float]:
        return [score - mean(self.scores) for score in self.scores]

    @property
    def margin(self) -> float:
        """How far the best choice is ahead."""
        best, second = sorted(self.scores, reverse=True)[:2]
        return best - second


class HarnessError(EmbedgradError):
    """The harness is not installed, or failed."""


def harness_task(
    name: str, source: Source, data_dir: Path, prompt_template: PromptTemplate, choices: Sequence[str]
) -> dict[str, Any]:
    """A task of the harness that asks what `conversation` asks. Its text is a Jinja template over the file's fields."""
    return {
        "task": name,
        "dataset_path": source.loader,
        "dataset_kwargs": {"data_files": {"test": str((data_dir / source.file).absolute())}, **source.options},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": prompt_template.render(f"{{{{ {source.query} | trim }}}}").text,
        "doc_to_target": source.label,
        "doc_to_choice": list(choices),
        "target_delimiter": prompt_template.blank,  # a choice follows the conversation as it stands
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }


def run_harness(program: Path, model: LanguageModel, tasks: Sequence[dict[str, Any]], work: Path) -> None:
    """Run the harness on the tasks; its results and samples lie below `work` afterwards."""
    for task in tasks:
        (work / f"{task['task']}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    adds_special_tokens = not model.is_chat  # a chat template writes its own, as in embedgrad
    arguments = f"pretrained={assets.resolve(model.path)},dtype=float32,add_bos_token={adds_special_tokens}"
    command = [program, "run", "--model", "hf", "--model_args", arguments, "--device", "cpu", "--batch_size", "16"]
    command += ["--tasks", ",".join(task["task"] for task in tasks), "--include_path", work]
    command += ["--log_samples", "--output_path", work / "out"]
    environment = os.environ | {"HF_HOME": str(work / "home")}
    try:
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HarnessError(
            f"--lm-eval={program} cannot be run: {error.strerror}. `make test-lm-eval` installs it."
        ) from None
    if done.returncode:
        raise HarnessError(f"{program} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def harness_answers(
    work: Path, task: str, model: LanguageModel, source: Source, choices: Sequence[str]
) -> list[Answer]:
    """What the harness logged for every row of a task."""
    [file] = work.glob(f"out/**/samples_{task}_*.jsonl")
    answers = []
    for sample in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        texts = ["".join(arguments.values()) for arguments in sample["arguments"].values()]
        tokens = model.tokenizer(texts, add_special_tokens=not model.is_chat)["input_ids"]
        scores = [float(score) for score, _ in sample["filtered_resps"]]
        query = sample["doc"][source.query]
        norm_choice = likeliest([score / len(text) for score, text in zip(scores, choices, strict=True)], choices)
        by_length = (norm_choice, sample["acc_norm"] == 1)
        answers.append(Answer(query, likeliest(scores, choices), sample["acc"] == 1, scores, tokens, *by_length))
    return answers


def embedgrad_answers(arm: Arm, rows: Sequence[Row], config: OptimizeConfig) -> list[Answer]:
    """What embedgrad answers, with the scores behind it."""
    batch_size = config.evaluation.batch_size
    by_sum, by_length = (
        answer_and_grade(arm, rows, replace(config.task, score=rule), batch_size) for rule in ("sum", "normalized")
    )
    choices = arm.choices[rows[0].choices].ids  # those of every row
    scores = score_choices(arm.forward, arm.examples, choices, arm.prompt, batch_size)
    answers = []
    for row, one, norm, example, values in zip(rows, by_sum, by_length, arm.examples, scores, strict=True):
        prompt_ids = token_ids(example.tokens, arm.prompt.slots)
        tokens = [[*prompt_ids, *choice] for choice in choices]
        answers.append(Answer(row.query, one.output, one.correct, values, tokens, norm.output, norm.correct))
    return answers


def likeliest(scores: Sequence[float], choices: Sequence[str]) -> str:
    return choices[max(range(len(choices)), key=scores.__getitem__)]


def match(ours: Iterable[Answer], theirs: Iterable[Answer]) -> tuple[list[tuple[Answer, Answer]], list[Answer]]:
    """Pairs of answers to the same text, and answers of ours to texts that are not among theirs."""
    by_text: dict[str, Answer] = {}
    for answer in theirs:
        by_text.setdefault(normalise(answer.query), answer)
    pairs, missing = [], []
    for answer in ours:
        other = by_text.get(normalise(answer.query))
        if other is None:
            missing.append(answer)
        else:
            pairs.append((answer, other))
    return pairs, missing


def score_gap(ours: Answer, theirs: Answer) -> float:
    """Largest difference of the centred scores: 0 if both rank the choices by the same margins."""
    return max(abs(a - b) for a, b in zip(ours.centred, theirs.centred, strict=True))


def explain(ours: Answer, theirs: Answer) -> str:
    """Why two answers differ, in one word or two."""
    if ours.tokens != theirs.tokens:
        return "tokenisation"
    if ours.choice == theirs.choice:
        return "label"
    return "tie" if max(ours.margin, score_gap(ours, theirs)) < ROUNDING else "scores"


def compare(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """One arm: how many rows agree in choice and in its grade, how far scores are apart, and every difference."""
    pairs, missing = match(ours, theirs)
    differences = [
        {
            "query": a.query,
            "why": explain(a, b),
            "embedgrad": {"choice": a.choice, "correct": a.correct, "scores": a.scores},
            "lm_eval": {"choice": b.choice, "correct": b.correct, "scores": b.scores},
        }
        for a, b in pairs
        if (a.choice, a.correct) != (b.choice, b.correct)
    ]
    same_norm = sum((a.norm_choice, a.norm_correct) == (b.norm_choice, b.norm_correct) for a, b in pairs)
    gaps = [score_gap(a, b) for a, b in pairs]
    same_choice, same_scores = len(pairs) - len(differences), sum(gap < ROUNDING for gap in gaps)
    needed = NEEDED_AGREEMENT * len(ours)
    return {
        "passed": bool(pairs) and not missing and min(same_choice, same_norm, same_scores) >= needed,
        "rows": {"embedgrad": len(ours), "lm_eval": len(theirs), "compared": len(pairs)},
        "same_choice": same_choice,
        "same_norm_choice": same_norm,
        "same_scores": same_scores,
        "same_tokens": sum(a.tokens == b.tokens for a, b in pairs),
        "largest_score_gap": max(gaps, default=None),
        "smallest_margin": min((a.margin for a, _ in pairs), default=None),
        "choices": {"embedgrad": Counter(a.choice for a, _ in pairs), "lm_eval": Counter(b.choice for _, b in pairs)},
        "correct": {"embedgrad": sum(a.correct for a, _ in pairs), "lm_eval": sum(b.correct for _, b in pairs)},
        "norm_correct": {
            "embedgrad": sum(a.norm_correct for a, _ in pairs),
            "lm_eval": sum(b.norm_correct for _, b in pairs),
        },
        "differences": differences,
        "missing": [answer.query for answer in missing],
    }


def config_of(args: argparse.Namespace) -> OptimizeConfig:
    """The product's own settings for the task, in float32 on the CPU. Raises `UserError` without data."""
    source = TASKS[args.task]
    choices = [f"task={source.task or args.task}", f"prompt={source.prompt}", "template=system"]
    config = compose([*choices, "model.dtype=float32", "device=cpu", "output_dir=unused"])
    if source.labels:
        config.task.labels, config.task.choices = source.labels, list(source.labels.values())
    if source.text:
        config.model.template, config.template.text = "plain", source.text
    if args.model:
        config.model.path = str(args.model)
    if args.data_dir:
        config.task.data_dir = str(args.data_dir)
    if config.task.data_dir is None:
        raise UserError(f"--task {args.task} needs --data-dir DIR, the folder that holds {TASKS[args.task].file}.")
    return config


def check(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Let both answer both arms of the task. Returns: the content of the JSON file."""
    source, config = TASKS[args.task], config_of(args)
    choices, data_dir = config.task.choices or [], Path(assets.resolve(str(config.task.data_dir)))
    splits, model = load(config.task, config.seed), load_model(config.model, pick_device(config.device))
    rows = [row for split in source.splits for row in splits.rows_of(split)]
    texts = {"none": None, "seed": seeds_of(config.prompt)}
    prompts = {name: ArmPrompt(seeds) for name, seeds in texts.items()}
    arm_set = build_arms(rows, model, config.template, config.task, prompts)
    arms = arm_set.arms
    prompt_templates = {
        name: PromptTemplate(config.template, list(seeds) if seeds else None, model.tokenizer, model.is_chat)
        for name, seeds in texts.items()
    }
    names = {arm: f"embedgrad_{args.task}_{arm}" for arm in arms}
    tasks = [harness_task(names[arm], source, data_dir, prompt_templates[arm], choices) for arm in arms]
    run_harness(args.lm_eval, model, tasks, work)
    [report] = (json.loads(file.read_text()) for file in work.glob("out/**/results_*.json"))
    return {
        "task": args.task,
        "model": model.path,
        "versions": {"lm_eval": report["lm_eval_version"], "transformers": report["transformers_version"]},
        "arms": {
            name: compare(
                embedgrad_answers(arm, arm_set.rows, config),
                harness_answers(work, names[name], model, source, choices),
            )
            for name, arm in arms.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, 120)
    title = f"{result['task']} on {result['model']}: embedgrad and lm-eval {result['versions']['lm_eval']}"
    table = Table(title=title)
    columns = ("arm", "rows", "same acc", "same acc_norm", "same scores", "same tokens", "score gap", "acc", "acc_norm")
    for name in columns:
        table.add_column(name, justify="left" if name == "arm" else "right")
    for name, arm in result["arms"].items():
        rows, gap = arm["rows"], arm["largest_score_gap"]
        table.add_row(
            name,
            f"{rows['compared']} of {rows['lm_eval']}",
            *(str(arm[column]) for column in ("same_choice", "same_norm_choice", "same_scores", "same_tokens")),
            "" if gap is None else f"{gap:.1e}",
            *(f"{arm[key]['embedgrad']} and {arm[key]['lm_eval']}" for key in ("correct", "norm_correct")),
        )
    console.print(table)
    for name, arm in result["arms"].items():
        for text in arm["missing"]:
            console.print(f"{name}, not among the harness's rows: {text}", markup=False)
        for one in arm["differences"]:
            console.print(f"{name}, {one['why']}: {one['query']}", markup=False)
            for side in ("embedgrad", "lm_eval"):
                scores = ", ".join(f"{score:.6f}" for score in one[side]["scores"])
                console.print(f"    {side}: {one[side]['choice']} ({scores})", markup=False)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare embedgrad's choices with lm-evaluation-harness, row by row.")
    parser.add_argument("--task", choices=list(TASKS), default="reviews", help="default: reviews, which is embedded")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="local files of sst2 or causal-judgement")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="default: the embedded model")
    program = ROOT / ".venv-lm-eval/bin/lm_eval"
    parser.add_argument("--lm-eval", type=Path, default=program, metavar="PROGRAM", help="default: .venv-lm-eval's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures and differences to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Returns: the exit code."""
    args = parse(arguments)
    with tempfile.TemporaryDirectory() as work:
        result = check(args, Path(work))
    show(result)
    if args.json:
        write_json(args.json, result)
    return 0 if all(arm["passed"] for arm in result["arms"].values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EmbedgradError as error:
        print(f"check_lm_eval: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
