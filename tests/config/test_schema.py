"""Settings that change no result."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tests.conftest import evaluate_config, optimize_config

from embedgrad_cli.config.schema import WITHOUT_EFFECT, with_effect
from embedgrad_cli.storage.run_directory import flatten, is_among


def test_what_changes_no_result_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    like = optimize_config(tmp_path, tmp_path, tmp_path)
    settings = asdict(evaluate_config(like, tmp_path, "prompt.safetensors"))
    kept = flatten(with_effect(settings))
    assert {key: value for key, value in flatten(settings).items() if not is_among(key, WITHOUT_EFFECT)} == kept
    assert "requests.model" in kept


def test_settings_that_differ_in_it_alone_are_the_same(tmp_path: Path) -> None:
    config = optimize_config(tmp_path, tmp_path, tmp_path)
    others = [None, {"gpu_memory_utilization": 0.4}, {"gpu_memory_utilization": 0.6}]
    assert len({str(with_effect(asdict(replace(config, engine_args=one)))) for one in others}) == 1
    other = replace(config, engine_args={"gpu_memory_utilization": 0.4, "max_num_seqs": 8})
    assert with_effect(asdict(other))["engine_args"] == {"max_num_seqs": 8}
