"""What an artifact records of the command line that made it, and what may be typed next."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from tests.conftest import optimize_config

from embedgrad_cli.cli.hydra_job import _next_steps, recorded_line
from embedgrad_cli.config.arm_spec import quote_texts
from embedgrad_cli.config.compose import Request, check_line


def test_what_changes_no_result_is_not_recorded() -> None:
    kept = ["task=sst2", "+engine_args.max_num_seqs=8", "train.steps=3"]
    left_out = ["output_dir=out", "launch.processes=2", "+engine_args.gpu_memory_utilization=0.4", "hydra.verbose=true"]
    request = Request("optimize", [], config_dir="/home/me/conf")
    assert recorded_line(request, [*left_out, *kept]) == ["--config-dir=DIR", *kept]


def next_steps(output_dir: str, data_dir: str = "data", report: bool = True) -> str:
    config = optimize_config(Path("run"), Path("model"), Path("data"), task__data_dir=data_dir, report=report)
    return _next_steps(replace(config, output_dir=output_dir))


def test_what_may_be_typed_next_is_read_with_any_folder() -> None:
    for folder in ("outputs/demo", "my runs/ä, (b) = it's"):
        typed = re.findall(r"  embedgrad (\w+) (.*)", next_steps(folder))
        assert [command for command, _ in typed] == ["evaluate", "export"]
        for command, settings in typed:
            config = check_line(Request(command, [*map(quote_texts, shlex.split(settings))]), values=False)
            assert config.problems == []
            assert config.composed is not None
            assert config.composed.artifact == f"{folder}/prompt.safetensors"
            assert command == "evaluate" or config.composed.output_dir == f"{folder}/exported"


def test_next_is_what_is_there_and_what_was_not_done() -> None:
    assert "run/report.html" in next_steps("run")
    assert "report" not in next_steps("run", report=False)
    assert "own-csv" not in next_steps("run"), "these are rows of one's own already"
    assert "own-csv" in next_steps("run", data_dir="embedded:reviews")
