"""One table: embedgrad, PEFT's prompt tuning and LoRA on the embedded model and its tasks.

    python scripts/compare_methods.py [--tasks reviews causes] [--methods embedgrad lora] [--out DIR] [--markdown FILE]

Every method gets the same rows, batches in the same order, steps, AdamW settings, clipping, schedule and number of
learning rates. The step of a training and the learning rate of a method are chosen by validation accuracy, then loss;
only the chosen one answers the test split, once. What is finished is kept in the work folder and not done again; other
settings, rows or weights have folders of their own. With several seeds (of subset, order and initial values)
accuracies, differences and seconds are means, intervals are of a test set of this size at the mean accuracy, and p is
the largest of the seeds', because repeated questions are not new ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rich.console import Console
from rich.table import Table

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt
from embedgrad_cli.evaluation.outcomes import answer_and_grade
from embedgrad_cli.evaluation.significance import paired_difference, wilson_interval
from embedgrad_cli.storage.files import write_atomically, write_json
from methods.ours import EmbedGrad, arm_of
from methods.peft_methods import Peft, lora, prompt_tuning
from methods.problem import SEED_PROMPTS, Method, Problem, Trial

PROMPT_RATES = (0.03, 0.1, 0.3, 1.0)  # in units of the embedding table's RMS
LORA_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
METHODS: dict[str, Method] = {
    "embedgrad": EmbedGrad("embedgrad", PROMPT_RATES),
    "embedgrad-free": EmbedGrad("embedgrad, no trust region", PROMPT_RATES, trust_region=False),
    "peft-text": Peft("PEFT prompt tuning, TEXT", PROMPT_RATES, partial(prompt_tuning, init="TEXT")),
    "peft-random": Peft("PEFT prompt tuning, RANDOM", PROMPT_RATES, partial(prompt_tuning, init="RANDOM")),
    "peft-vocab": Peft("PEFT prompt tuning, SAMPLE_VOCAB", PROMPT_RATES, partial(prompt_tuning, init="SAMPLE_VOCAB")),
    "lora": Peft("LoRA r=8", LORA_RATES, lora),
}
DEFAULT_METHODS = [name for name in METHODS if name != "peft-vocab"]
UNTRAINED = {"none": "no prompt", "seed": "seed prompt"}
COLUMNS = ["task", "method", "lr", "trained", "accuracy", "95 % interval", "vs embedgrad", "p", "seconds"]
TABLE_WIDTH = 140
AT_END = "*: the smallest or largest learning rate that was tried; a better one may lie beyond."

progress = Console(stderr=True, highlight=False)


def sweep(method: Method, problem: Problem, folder: Path) -> list[Trial]:
    """One trial per learning rate; those in the folder are read."""
    trials = []
    for lr in method.rates:
        run = folder / f"lr-{lr:g}"
        file = run / "trial.json"
        if not file.exists():
            run.mkdir(parents=True, exist_ok=True)
            progress.print(f"{problem.key} · {method.title} · lr {lr:g}", soft_wrap=True)
            write_json(file, asdict(method.train(problem, lr, run)))
        trials.append(Trial(**json.loads(file.read_text())))
        progress.print(f"  lr {lr:g}: validation {trials[-1].accuracy:.1%}, loss {trials[-1].loss:.3f}")
    return trials


def choose(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: (-trial.accuracy, trial.loss))


def answers(file: Path, problem: Problem, arm: Arm | None) -> list[bool]:
    """Whether each test row is answered rightly: from the file, or by the arm (None: it must be in the file)."""
    if arm is not None:
        config = problem.config
        outcomes = answer_and_grade(arm, problem.splits.test, config.task, config.evaluation.batch_size)
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {"id": o.answer.id, "output": o.output, "extracted": o.extracted, "correct": o.correct} for o in outcomes
        ]
        write_json(file, {"answers": lines})
    return [answer["correct"] for answer in json.loads(file.read_text())["answers"]]


def compare(problem: Problem, names: Sequence[str], work: Path) -> dict[str, dict[str, Any]]:
    """Train and test what is not in the work folder yet. Returns: a record per arm, the untrained ones first."""
    folder, test = work / problem.key, problem.splits.test
    records: dict[str, dict[str, Any]] = {}
    for name, title in UNTRAINED.items():
        file, arm = folder / f"test-{name}.json", None
        if not file.exists():
            seeds = None if name == "none" else seeds_of(problem.config.prompt)
            arm = arm_of(problem, test, ArmPrompt(seeds))
        records[name] = {"title": title, "correct": answers(file, problem, arm)}
    for name in names:
        method = METHODS[name]
        trials = sweep(method, problem, folder / name)
        chosen = choose(trials)
        run = folder / name / f"lr-{chosen.lr:g}"
        file = run / "test.json"
        arm = None if file.exists() else method.arm(problem, run, test)
        correct = answers(file, problem, arm)
        records[name] = {"title": method.title, **asdict(chosen), "correct": correct}
        records[name]["sweep"] = [asdict(trial) for trial in trials]
        records[name]["at_end"] = chosen.lr in (method.rates[0], method.rates[-1])
    return records


def summarise(records: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """One arm over all seeds, and its difference to the reference arm on the same questions."""
    size = len(records[0]["correct"])
    accuracies = [sum(r["correct"]) / size for r in records]
    row: dict[str, Any] = {
        "title": records[0]["title"],
        "lr": sorted({r["lr"] for r in records if "lr" in r}),
        "at_end": any(r.get("at_end") for r in records),
        "trained": records[0].get("parameters", 0),
        "accuracy": mean(accuracies),
        "accuracies": accuracies,
        "ci95": wilson_interval(round(mean(accuracies) * size), size),
        "seconds": mean(r["seconds"] for r in records) if "seconds" in records[0] else None,
    }
    if reference is not None and reference is not records:
        pairs = [paired_difference(a["correct"], b["correct"]) for a, b in zip(reference, records, strict=True)]
        row["difference"] = mean(pair.difference for pair in pairs)
        row["mcnemar_p"] = max(pair.mcnemar_p for pair in pairs)
    return row


def cells(task: str, row: dict[str, Any]) -> list[str]:
    """A row of the table as text, in the order of `COLUMNS`."""
    low, high = row["ci95"]
    accuracy = f"{row['accuracy']:.1%}"
    if len(row["accuracies"]) > 1:
        accuracy += f" ({min(row['accuracies']):.1%} to {max(row['accuracies']):.1%})"
    difference, p = row.get("difference"), row.get("mcnemar_p")
    return [
        task,
        row["title"],
        ", ".join(f"{lr:g}" for lr in row["lr"]) + "*" * row["at_end"],
        f"{row['trained']:,}" if row["trained"] else "0",
        accuracy,
        f"{low:.1%} to {high:.1%}",
        "" if difference is None else f"{100 * difference:+.1f} points",
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        "" if row["seconds"] is None else f"{row['seconds']:.1f}",
    ]


def markdown(title: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    rows = [COLUMNS, ["---"] * 2 + ["---:"] * (len(COLUMNS) - 2), *lines]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return "\n\n".join([f"{title}:", table.rstrip(), *notes]).replace("*:", "\\*:") + "\n"


def show(title: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    table, console = Table(title=title), Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < 2 else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table, *notes, sep="\n")


def frozen_line(results: dict[str, list[dict[str, dict[str, Any]]]]) -> str:
    """Whether the base weights' hash was the same before and after embedgrad's trainings, and all others."""
    trials = {
        name: [trial for seeds in results.values() for records in seeds for trial in records[name]["sweep"]]
        for name in next(iter(results.values()))[0]
        if name not in UNTRAINED
    }
    changed = [name for name, runs in trials.items() if any(t["weights_before"] != t["weights_after"] for t in runs)]
    if changed:
        return f"The base weights CHANGED under: {', '.join(changed)}."
    prefixes = sorted({trial["weights_before"][:12] for runs in trials.values() for trial in runs})
    return (
        f"Base weights, sha256 {', '.join(prefixes)}…: the same before and after every training of {', '.join(trials)}."
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare methods on the embedded model and its tasks.")
    parser.add_argument("--tasks", nargs="+", choices=list(SEED_PROMPTS), default=list(SEED_PROMPTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=DEFAULT_METHODS)
    parser.add_argument("--examples", type=int, default=64, metavar="N", help="training rows (default 64)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="optimiser steps (default 50)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows per step (default 16)")
    parser.add_argument("--test", type=int, default=500, metavar="N", help="test rows (default 500)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0 alone")
    parser.add_argument("--out", type=Path, default=Path("outputs/compare"), help="work folder (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table's numbers to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    sizes = [
        f"task.split.num_train={args.examples}",
        f"task.split.num_test={args.test}",
        f"train.steps={args.steps}",
        f"train.batch_size={args.batch_size}",
    ]
    problems = {task: [Problem.compose(task, [*sizes, f"seed={seed}"]) for seed in args.seeds] for task in args.tasks}
    results = {task: [compare(p, args.methods, args.out) for p in seeds] for task, seeds in problems.items()}
    table = {}
    for task, seeds in results.items():
        arms = {name: [records[name] for records in seeds] for name in seeds[0]}
        table[task] = {name: summarise(records, arms.get("embedgrad")) for name, records in arms.items()}
    lines = [cells(task, row) for task, rows in table.items() for row in rows.values()]
    title = f"{args.examples} training rows, {args.steps} steps of {args.batch_size}, {args.test} test rows"
    notes = [frozen_line(results), AT_END]
    show(title, lines, notes)
    if args.json:
        content = {"settings": {**vars(args), "out": None, "json": None, "markdown": None}, "table": table}
        write_json(args.json, {**content, "results": results})
    if args.markdown:
        write_atomically(args.markdown, markdown(title, lines, notes).encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EmbedgradError as error:  # such as Ctrl-C in a training; the next run goes on from there
        progress.print(f"compare_methods: {error}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
