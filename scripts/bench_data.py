"""How long a large CSV takes to become rows and tokens, and how much memory.

python scripts/bench_data.py                 # 100,000 rows
python scripts/bench_data.py --rows 10000

A task over a generated file is loaded as `embedgrad evaluate` loads it (read, checked, cleaned, split, hashed), then a
tenth of its rows are rendered and tokenised for the embedded model, which is all that comes before the first answer.
Every phase prints its seconds (of the clock and of the processor) and the peak memory above what was taken before it.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.tasks.load import load

WORDS = ("the", "film", "plot", "actor", "slow", "bright", "dull", "never", "gripping", "scene", "music", "ends")
TASK = """\
name: large
kind: choice
query: "{text}"
target: "{label}"
labels: {0: negative, 1: positive}
choices: [negative, positive]
split: {test: null, num_validation: 200, num_test: 0.1}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=50, help="per row")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_csv(folder / "train.csv", args.rows, args.words)
        (folder / "task").mkdir()
        (folder / "task" / "large.yaml").write_text(TASK)
        print(f"{args.rows:,} rows, {size / 1e6:.0f} MB of CSV")
        config = config_of(Request("optimize", ["task=large", f"task.data_dir={folder}"], str(folder)))
        assert isinstance(config, OptimizeConfig)
        model = load_model(config.model, pick_device("cpu"))
        with measured("read, checked, cleaned, split"):
            splits = load(config.task, config.seed)
        with measured(f"{len(splits.test):,} test rows tokenised"):
            prompt_template = PromptTemplate(config.template, [str(config.prompt.text)], model.tokenizer, model.is_chat)
            encode(splits.test, prompt_template, model, append_end_token=False)


def write_csv(path: Path, rows: int, words: int) -> int:
    """Write rows of random words. Returns: the file's size in bytes."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for number in range(rows):
            writer.writerow([number, f"{number} {' '.join(draw.choices(WORDS, k=words))}", number % 2])
    return path.stat().st_size


@contextmanager
def measured(what: str) -> Iterator[None]:
    before, started, busy = peak_megabytes(), time.perf_counter(), time.process_time()
    yield
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(
        f"{what}: {seconds:.1f} s ({busy:.1f} s of the processor), {peak_megabytes() - before:.0f} MB more at the peak"
    )


def peak_megabytes() -> float:
    """The process's largest memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
