"""The recipe for lm-evaluation-harness in docs/serving.md, and `embedgrad evaluate` on the same rows.

    python scripts/check_lm_eval_export.py [--task reviews]
    python scripts/check_lm_eval_export.py --task sst2 --data-dir DIR [--artifact FILE] [--json FILE]

The recipe runs as it stands: `format=model`, then the harness with a task whose text is the bare query and with the
model's own chat template. So the harness knows nothing of the prompt; the exported folder has to bring it. For
`reviews`, which is embedded, only the task's file and fields are others. Without --artifact a prompt is optimised
first. The exit code is 1 if the accuracies differ by more than half a point, or a row of embedgrad's is not among the
harness's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from check_lm_eval import ROOT, TASKS, HarnessError, Source, likeliest
from embedgrad_cli import assets
from embedgrad_cli.cli.main import main as embedgrad
from embedgrad_cli.errors import EmbedgradError, UserError
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.tasks.splits import normalise
from serving.recipes import blocks, run_block

HEADING = "lm-evaluation-harness"
ALLOWED = 0.005  # of accuracy
CHOICES = ["negative", "positive"]
DATA_DIRS = {"sst2": None, "reviews": "embedded:reviews"}  # None: users' own


def task_of(name: str) -> dict[str, Any]:
    """The recipe's task, or the same for another file."""
    [text] = [text for language, text in blocks(HEADING) if language == "yaml"]
    task = yaml.safe_load(text)
    if name == "sst2":
        return task
    source = TASKS[name]
    files = {"data_files": {"test": source.file}, **source.options}
    return {
        **task,
        "task": f"{name}_prompted",
        "dataset_path": source.loader,
        "dataset_kwargs": files,
        "doc_to_text": f"{{{{ {source.query} | trim }}}}",
        "doc_to_target": source.label,
    }


def run_recipe(name: str, folder: Path, program: Path) -> None:
    """Run the recipe in a folder that holds prompt.safetensors and the task's file.

    Raises:
        HarnessError: there is no harness, or a command of the recipe failed.
    """
    if not program.exists():
        raise HarnessError(f"--lm-eval={program} is not there. `make test-lm-eval` installs it.")
    task = task_of(name)
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    [commands] = [text for language, text in blocks(HEADING) if language == "bash"]
    try:
        text = commands.replace("sst2_prompted", task["task"])
        run_block("bash", text, folder, program.absolute().parent, HF_HOME=str(folder / "home"))
    except RuntimeError as error:
        raise HarnessError(str(error)) from None


def harness_answers(folder: Path, source: Source) -> dict[str, tuple[str, bool]]:
    """What the harness chose for every text, and whether it is right. A repeated text counts once."""
    [file] = folder.glob("out/**/samples_*.jsonl")
    answers: dict[str, tuple[str, bool]] = {}
    for sample in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        scores = [float(score) for score, _ in sample["filtered_resps"]]
        choice = likeliest(scores, CHOICES)
        answers.setdefault(normalise(sample["doc"][source.query]), (choice, sample["acc"] == 1))
    return answers


def harness_accuracy(folder: Path) -> tuple[float, int]:
    """By its own count, on all of its rows, and how many these are."""
    [report] = (json.loads(file.read_text()) for file in folder.glob("out/**/results_*.json"))
    [(name, result)] = report["results"].items()
    return result["acc,none"], report["n-samples"][name]["effective"]


def evaluate(name: str, folder: Path, data_dir: str, artifact: Path | None) -> None:
    """Leave prompt.safetensors and `embedgrad evaluate`'s run directory in the folder."""
    task = [f"task={name}", f"task.data_dir={data_dir}", "device=cpu", "log_level=warning"]
    if artifact is None:
        _call(["optimize", *task, f"prompt={TASKS[name].prompt}", f"output_dir={folder}/run"])
        artifact = folder / "run/prompt.safetensors"
    shutil.copyfile(artifact, folder / "prompt.safetensors")
    arms = [f"artifact={folder}/prompt.safetensors", "arms=[seed,optimized]", f"output_dir={folder}/evaluation"]
    _call(["evaluate", *task, *arms])


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Accuracies, and every row whose choice differs."""
    ours = json.loads((folder / "evaluation/results.json").read_text())["arms"]["optimized"]["accuracy"]
    lines = (folder / "evaluation/samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["arm"] == "optimized"]
    theirs = harness_answers(folder, TASKS[name])
    accuracy, count = harness_accuracy(folder)
    differences, missing = [], []
    for row in rows:
        other = theirs.get(normalise(row["query"]))
        if other is None:
            missing.append(row["query"])
        elif other != (row["output"], row["correct"]):
            differences.append({"query": row["query"], "embedgrad": row["output"], "lm_eval": other[0]})
    return {
        "task": name,
        "accuracy": {"embedgrad": ours, "lm_eval": accuracy},
        "rows": {"embedgrad": len(rows), "lm_eval": count},
        "differences": differences,
        "missing": missing,
        "passed": abs(ours - accuracy) <= ALLOWED and not missing and bool(rows),
    }


def show(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for side in ("embedgrad", "lm_eval"):
        console.print(f"{result['task']}, {side}: {result['accuracy'][side]:.2%} of {result['rows'][side]} rows")
    for one in result["differences"]:
        console.print(f"embedgrad {one['embedgrad']}, lm_eval {one['lm_eval']}: {one['query']}", markup=False)
    for query in result["missing"]:
        console.print(f"not among the harness's rows: {query}", markup=False)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An exported model in lm-evaluation-harness and `embedgrad evaluate`.")
    parser.add_argument(
        "--task", choices=list(DATA_DIRS), default="reviews", help="default: reviews, which is embedded"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="local files of sst2")
    parser.add_argument("--artifact", type=Path, metavar="FILE", help="default: one that is optimised now")
    program = ROOT / ".venv-lm-eval/bin/lm-eval"
    parser.add_argument("--lm-eval", type=Path, default=program, metavar="PROGRAM", help="default: .venv-lm-eval's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures and differences to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Returns: the exit code."""
    args = parse(arguments)
    data_dir = args.data_dir or DATA_DIRS[args.task]
    if data_dir is None:
        raise UserError(f"--task {args.task} needs --data-dir DIR, the folder that holds {TASKS[args.task].file}.")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        shutil.copyfile(Path(assets.resolve(str(data_dir))) / TASKS[args.task].file, folder / TASKS[args.task].file)
        evaluate(args.task, folder, str(data_dir), args.artifact)
        run_recipe(args.task, folder, args.lm_eval)
        result = compare(args.task, folder)
    show(result)
    if args.json:
        write_json(args.json, result)
    return 0 if result["passed"] else 1


def _call(command: list[str]) -> None:
    if embedgrad(command) != 0:
        raise HarnessError(f"embedgrad {' '.join(command)} failed")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EmbedgradError as error:
        print(f"check_lm_eval_export: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
