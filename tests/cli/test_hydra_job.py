"""What an artifact records of the command line that made it."""

from __future__ import annotations

from embedgrad_cli.cli.hydra_job import recorded_line
from embedgrad_cli.config.compose import Request


def test_what_changes_no_result_is_not_recorded() -> None:
    kept = ["task=sst2", "+engine_args.max_num_seqs=8", "train.steps=3"]
    left_out = ["output_dir=out", "launch.processes=2", "+engine_args.gpu_memory_utilization=0.4", "hydra.verbose=true"]
    request = Request("optimize", [], config_dir="/home/me/conf")
    assert recorded_line(request, [*left_out, *kept]) == ["--config-dir=DIR", *kept]
