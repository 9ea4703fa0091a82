"""What an artifact records of the command line that made it, and what may be typed next."""

from __future__ import annotations

import re
import shlex

from embedgrad_cli.cli.hydra_job import _next_steps, recorded_line
from embedgrad_cli.config.compose import Request, check_line


def test_what_changes_no_result_is_not_recorded() -> None:
    kept = ["task=sst2", "+engine_args.max_num_seqs=8", "train.steps=3"]
    left_out = ["output_dir=out", "launch.processes=2", "+engine_args.gpu_memory_utilization=0.4", "hydra.verbose=true"]
    request = Request("optimize", [], config_dir="/home/me/conf")
    assert recorded_line(request, [*left_out, *kept]) == ["--config-dir=DIR", *kept]


def test_what_may_be_typed_next_is_read_with_any_folder() -> None:
    for folder in ("outputs/demo", "my runs/ä, (b) = it's"):
        for command, settings in re.findall(r"  embedgrad (\w+) (.*)", _next_steps(folder)):
            config = check_line(Request(command, shlex.split(settings)), values=False)
            assert config.problems == []
            assert config.composed is not None
            assert config.composed.artifact == f"{folder}/prompt.safetensors"
            assert command == "evaluate" or config.composed.output_dir == f"{folder}/exported"
