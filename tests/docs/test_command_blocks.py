"""What README.md, docs/ and the comments in conf/ show: every command runs, or is understood and known not to run."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from tests.docs.snippets import CONFIGS, PAGES, ROOT, Snippet, fences, snippets, words_of
from tests.docs.workplace import Workplace, filled

from embedgrad_cli.cli.dry_run_flags import take_dry_run
from embedgrad_cli.config.compose import Request, check_line

HUB = "model or data are on the hub"
PROCESSES = "starts processes; tests/parallel/test_start.py does"
SERVER = "needs vLLM; `make test-serving` runs it"
# Why a command is not run here; * stands for any words. It is still parsed, if it is embedgrad's, make's or a script's.
NOT_RUN = {
    "make *": "installs packages, or takes minutes",
    "pip install *": "installs packages",
    "eval *": "changes the shell; tests/cli/test_main.py runs it in one",
    "python scripts/bench_*": "needs a GPU and the configs of large models",
    "python scripts/fetch_smollm2.py": "fetches a model",
    "python scripts/compare_methods.py *": "needs a real model and its data; tests/scripts has it with a tiny one",
    "python scripts/report_pictures.py *": "needs a browser; `make test-report` opens reports in one",
    "python scripts/results_page.py *": "needs finished cells; tests/scripts has some",
    "python scripts/run_torture.py *": "takes minutes; `make torture-short` runs a few cases of every kind",
    "python scripts/sweep_page.py *": "needs finished runs; tests/scripts has some",
    "torchrun *": PROCESSES,
    "embedgrad optimize launch.processes=*": PROCESSES,
    "embedgrad evaluate * launch.processes=*": "starts processes; tests/parallel/test_evaluations.py does",
    "embedgrad optimize launch.tensor_parallel=*": "starts processes; tests/parallel/test_tensor_parallel.py does",
    "embedgrad optimize launch.device_map=*": "needs several GPUs; tests/core/model/test_laid_out.py has a stand-in",
    "embedgrad optimize *model.quantization=*": "needs bitsandbytes; tests/core/model/test_quantized.py runs on it",
    "embedgrad optimize *tracker=*": "needs the tracker; tests/tracking hands runs to each",
    "tensorboard *": "starts a server",
    "vllm serve *": SERVER,
    "transformers serve *": "needs what it serves with; `make test-serving` runs it",
    "llama-server *": "starts a server; `make test-llamacpp` does",
    "ollama *": "needs Ollama; tests/exports/test_format_gguf.py has what the Modelfile is made of",
    "embedgrad evaluate * engine=vllm": SERVER,
    "embedgrad optimize * engine=vllm *": SERVER,
    "python scripts/time_engines.py *": SERVER,
    "curl *": SERVER,
    "python embeds/client.py *": SERVER,
    "lm-eval *": "needs lm-evaluation-harness; `make test-lm-eval` runs it",
    ". .venv/bin/activate": "changes the shell",
    "python: docs/python.md": "tests/test_prompt.py runs it",
    "python: docs/tutorial.md": "tests/docs/test_tutorial.py runs it",
    "python: docs/serving.md": "tests/exports/test_recipes.py runs it; `make test-serving`, what needs a server",
    "embedgrad optimize model=gemma-*": HUB,
    "embedgrad optimize model=llama-*": HUB,
    "embedgrad optimize model=local model.path=Qwen/*": HUB,
    "embedgrad optimize model=qwen2.5-*": HUB,
    "embedgrad optimize model=smollm2-*": HUB,
    "embedgrad optimize task=bbh task.name=navigate": HUB,
    "embedgrad optimize task=causal-judgement prompt=causal-judgement": HUB,
    "embedgrad optimize --multirun task=causal-judgement task.split.folds=*": HUB,
    "embedgrad optimize --multirun experiment=causal-judgement *": HUB,
    "embedgrad optimize task=gsm8k": HUB,
    "embedgrad optimize task=gsm8k model=local model.path=DIR": HUB,
    "embedgrad optimize task=math model=*": HUB,
    "embedgrad optimize task=sst2 prompt=sentiment": HUB,
    "embedgrad optimize experiment=causal-judgement": HUB,
    "embedgrad optimize experiment=math-reasoning": HUB,
    "embedgrad optimize experiment=sentiment": HUB,
    "embedgrad optimize --multirun experiment=paper/*": HUB,
    "embedgrad optimize --multirun * hydra/launcher=joblib *": "starts processes; tests/cli/test_sweep.py does",
    "embedgrad optimize --multirun hydra/sweeper=optuna *": "trains 20 times; tests/cli/test_study.py trains a few",
    "embedgrad optimize --multirun hydra/launcher=submitit_slurm *": "needs Slurm",
    "python scripts/check_forecast.py *": "runs real models; tests/forecast/test_make.py compares with a run",
}
SHOWN = [snippet for source in (*PAGES, *CONFIGS) for snippet in snippets(source)]


def excused(snippet: Snippet) -> bool:
    return any(fnmatchcase(snippet.name, pattern) for pattern in NOT_RUN)


RUN = [snippet for snippet in SHOWN if not excused(snippet)]
# By name, because several pages show the same command. A choice alone is composed by tests/config/test_conf.py.
PARSED = {
    snippet.name: snippet
    for snippet in filter(excused, SHOWN)
    if re.match(r"embedgrad |make |python scripts/", snippet.name)
    and not re.fullmatch(r"embedgrad optimize \w+=\S+", snippet.name)
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("source", dict.fromkeys(snippet.source for snippet in RUN))
def test_what_a_file_shows_runs(source: str, workplace: Workplace, hub: None) -> None:
    """In its order, because later commands read what earlier ones wrote."""
    for snippet in RUN:
        if snippet.source == source:
            workplace.run(snippet)


@pytest.mark.parametrize("name", PARSED)
def test_what_does_not_run_here_is_understood(name: str, furnished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = words_of(PARSED[name].text)
    if program == "embedgrad":
        command, *rest = filled(words)
        rest, _ = take_dry_run(command, rest)
        overrides = [word for word in rest if word != "--multirun"]
        with contextlib.chdir(furnished):
            problems = check_line(Request(command, overrides, multirun="--multirun" in rest)).problems
        if any("is not installed: pip install 'embedgrad[" in problem for problem in problems):
            pytest.skip(*problems)
        assert problems == []
    elif program == "make":
        subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)
    else:
        parse_arguments(*words, monkeypatch=monkeypatch)


def parse_arguments(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a script parse its arguments and do no more."""
    pytest.importorskip("peft")

    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, given: Any = None) -> None:
        parse(parser, given)
        raise Parsed

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module(Path(script).stem)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(Parsed):
        module.main(arguments)


def test_no_excuse_is_stale() -> None:
    names = [snippet.name for snippet in SHOWN]
    assert [pattern for pattern in NOT_RUN if not any(fnmatchcase(name, pattern) for name in names)] == []


def test_no_block_is_overlooked() -> None:
    """Commands stand in blocks marked bash, and blocks without a mark hold none."""
    every = [(page, *fence) for page in PAGES for fence in fences(page)]
    assert {language for _, language, _ in every} <= {"bash", "python", "yaml", "csv", ""}
    assert [page for page, language, text in every if language == "" and re.search("^embedgrad ", text, re.M)] == []
    assert {"README.md", "docs/evaluation.md", "conf/evaluate.yaml"} <= {snippet.source for snippet in SHOWN}
