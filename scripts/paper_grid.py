"""Writes docs/paper-grid.md: what the paper's grid would take on GPUs of 24, 48 and 80 GB, by `--dry-run`'s own code.

    python scripts/paper_grid.py --configs DIR --tokenizer DIR --data DIR [--output docs/paper-grid.md]

No GPU and no weights are needed. --configs holds NAME.config.json of the models, --tokenizer the files of Qwen2.5's
tokenizer, --data the folders math, sst2 and bbh. A model whose config is not there is named and left open; a base
model's config stands for the Instruct model of the same size. A line is printed per run as it is done.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.forecast.figures import Forecast
from embedgrad_cli.forecast.make import make_forecast

SIZES = (24, 48, 80)  # GB
GIGA, TERA = 1e9, 1e12
EXPERIMENTS = {"math": "math", "sentiment": "sst2", "causal": "bbh"}  # and their folders of data
TOP = """# The paper's grid

The paper's models and task families as three commands:

```bash
embedgrad optimize --multirun experiment=paper/math output_dir=outputs/paper/math
embedgrad optimize --multirun experiment=paper/sentiment output_dir=outputs/paper/sentiment
embedgrad optimize --multirun experiment=paper/causal output_dir=outputs/paper/causal
```

Each goes over a list of models (`hydra.sweeper.params` in [`conf/experiment/paper/`](../conf/experiment/paper)), whose
place `model=NAME,NAME` on the command line takes. With `device=cuda --dry-run --memory 24` it is the forecast of every
run, before any is started.

**Nothing on this page was measured on a GPU, and none of these runs was made.** The table is a [forecast](forecast.md)
by `scripts/paper_grid.py`, from the models' configs, their tokenizer and the real rows: the memory of PyTorch's tensors
in 16 bits, without what CUDA itself takes; the config of a base model stands for the Instruct model of its size.
Operations are those of a step, of all steps, and of all validations and the test, where every answer that is generated
is counted with all the tokens that it may have. How many hours that is depends on what a GPU sustains, which was not
measured: `--tflops N` divides by a rate of yours. Of causal judgement it is the first of five folds.

| experiment | model | parameters | peak, GB | step, TFLOP | training, TFLOP | answers, TFLOP | """


def models_of(experiment: str) -> list[str]:
    """The choices that an experiment's sweep goes over."""
    content = yaml.safe_load((conf_dir() / "experiment" / "paper" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    return [name.strip() for name in content["hydra"]["sweeper"]["params"]["model"].split(",")]


def config_file(model: str, configs: Path) -> Path | None:
    """The config of a choice of the group `model`."""
    hub_id = yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8"))["path"]
    name = hub_id.rpartition("/")[2]
    files = [configs / f"{one}.config.json" for one in (name, name.removesuffix("-Instruct"))]
    return next((file for file in files if file.is_file()), None)


def forecast_of(experiment: str, model: str, folder: Path, data: Path, memory: int) -> Forecast:
    """Of one run on a GPU of so many GB."""
    words = [f"experiment=paper/{experiment}", f"model={model}", f"model.path={folder}", "device=cuda"]
    config = config_of(Request("optimize", [*words, f"task.data_dir={data / EXPERIMENTS[experiment]}"]))
    assert isinstance(config, OptimizeConfig)
    return make_forecast(config, DryRun(memory=int(memory * GIGA)))


def row_of(experiment: str, model: str, folder: Path, data: Path) -> str:
    """One line of the table."""
    forecast = forecast_of(experiment, model, folder, data, SIZES[-1])
    assert forecast.step is not None
    cells = [experiment, model, f"{forecast.model.parameters / GIGA:.2f} B", f"{forecast.peak / GIGA:.1f}"]
    step = forecast.step.operations
    answers = forecast.validation.operations * forecast.validations + forecast.test.operations
    cells += [f"{step / TERA:.3g}", f"{step * forecast.steps / TERA:,.0f}", f"{answers / TERA:,.0f}"]
    for size in SIZES:
        fits = forecast.peak <= size * GIGA
        cells.append("fits" if fits else _with_changes(forecast_of(experiment, model, folder, data, size)))
    return "| " + " | ".join(cells) + " |"


def _with_changes(forecast: Forecast) -> str:
    changes = forecast.changes
    if changes is None or not changes.enough:
        return "no"
    return f"{changes.peak / GIGA:.1f} with `{' '.join(changes.settings)}`"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("configs", "tokenizer", "data"):
        parser.add_argument(f"--{folder}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("docs/paper-grid.md"), metavar="FILE")
    args = parser.parse_args(argv)
    header = TOP + " | ".join(f"{size} GB" for size in SIZES) + " |\n" + "| --- " * (7 + len(SIZES)) + "|\n"
    rows, missing = list[str](), dict[str, None]()
    for experiment in EXPERIMENTS:
        for model in models_of(experiment):
            config = config_file(model, args.configs)
            if config is None:
                missing[model] = None
                continue
            with TemporaryDirectory() as folder:
                shutil.copytree(args.tokenizer, folder, dirs_exist_ok=True)
                shutil.copy(config, Path(folder, "config.json"))
                rows.append(row_of(experiment, model, Path(folder), args.data))
            print(rows[-1], flush=True)
    left_open = f"\nOpen, because their configs were not at hand: {', '.join(missing)}.\n" if missing else ""
    args.output.write_text(header + "\n".join(rows) + "\n" + left_open, encoding="utf-8")
    print(json.dumps({"rows": len(rows), "missing": list(missing)}))


if __name__ == "__main__":
    main()
