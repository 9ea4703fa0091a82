"""Work in halves where memory runs out, and what is free within a container's limits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_model, optimize_config
from tests.core.passes.parity import encoded_rows, gradient_by, moved_prompt

from embedgrad_cli.commands import optimize
from embedgrad_cli.core.kernels import memory
from embedgrad_cli.core.kernels.memory import OutOfMemory, RowsThatFit, left_in_groups
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import Generation
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.errors import DataError
from embedgrad_cli.training.checkpoint import TrainingState

OUT_OF_MEMORY = torch.OutOfMemoryError("out of memory")


def of_at_most(rows: int) -> tuple[Callable[[Sequence[int]], list[int]], list[int]]:
    """Work that runs out of memory with more rows, and the sizes it was tried with."""
    sizes: list[int] = []

    def work(part: Sequence[int]) -> list[int]:
        sizes.append(len(part))
        if len(part) > rows:
            raise OUT_OF_MEMORY
        return [10 * row for row in part]

    return work, sizes


def test_what_fits_is_found_by_halves_and_remembered() -> None:
    work, sizes = of_at_most(3)
    fit = RowsThatFit()
    for _ in range(2):
        assert fit.run(work, range(13)) == [10 * row for row in range(13)]
    assert sizes == [13, 6, *[3] * 4, 1, *[3] * 4, 1]


def test_where_not_even_one_fits_it_is_an_error_and_others_come_through() -> None:
    with pytest.raises(OutOfMemory):
        RowsThatFit().run(of_at_most(0)[0], range(5))

    def fails(_: Sequence[int]) -> list[int]:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        RowsThatFit().run(fails, range(5))


def test_losses_scores_and_answers_are_those_of_enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    encoded = encoded_rows(model, "before-query")
    prompt, choices = moved_prompt(encoded, model), [(30, 31), (32,)]

    def everything(forward: Forward) -> tuple[Any, ...]:
        decoder = Decoder(forward, prompt)
        loss = forward.mean_loss(encoded.examples, prompt, 8)
        scores = torch.tensor(decoder.score_choices(encoded.examples, choices))
        answers = decoder.generate(encoded.examples, 8, 8)
        sampled = decoder.generate(encoded.examples, 8, 8, Sampling(2, 1.0, 1.0, 0))
        return loss, scores, answers, sampled

    expected = everything(Forward(model, encoded.examples))
    expand, grow = Forward._expand, Generation._admit

    def limited(self: Forward, trunk: Any, batch: Sequence[Any]) -> Any:
        if len(batch) > 1:
            raise OUT_OF_MEMORY
        return expand(self, trunk, batch)

    def limited_growth(self: Generation) -> None:
        if self.at_once > self.sampling.num_samples:
            raise OUT_OF_MEMORY
        grow(self)

    monkeypatch.setattr(Forward, "_expand", limited)
    monkeypatch.setattr(Generation, "_admit", limited_growth)
    found = everything(Forward(model, encoded.examples))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert torch.allclose(found[1], expected[1], atol=1e-4)
    assert found[2:] == expected[2:]


def test_processes_that_divide_a_model_do_not_part_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began anew with fewer rows would wait for numbers that the others do not send."""
    model = replace(make_model(), is_divided=True)
    encoded = encoded_rows(model, "before-query")
    prompt, tries = moved_prompt(encoded, model), list[int]()
    decoder = Decoder(Forward(model, encoded.examples), prompt)

    def fails(self: Forward, trunk: Any, batch: Sequence[Any]) -> Any:
        tries.append(len(batch))
        raise OUT_OF_MEMORY

    monkeypatch.setattr(Forward, "_expand", fails)
    for work in (
        lambda rows: decoder.forward.mean_loss(rows, prompt, 8),
        lambda rows: decoder.score_choices(rows, [(30,)]),
        lambda rows: decoder.generate(rows, 8, 8),
    ):
        with pytest.raises(torch.OutOfMemoryError):
            work(encoded.examples)
    assert tries == [len(encoded.examples)] * 3


def test_kept_queries_are_given_back_before_micro_batches_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    encoded = encoded_rows(model, "after-query")
    prompt, queries = moved_prompt(encoded, model), QueryCache(1 << 20)
    forward = Forward(model, encoded.examples, queries=queries)
    expected = gradient_by(forward, encoded, prompt)
    assert queries.size
    real = forward.losses

    def limited(*arguments: Any) -> torch.Tensor:
        if queries.size:
            raise OUT_OF_MEMORY
        return real(*arguments)

    monkeypatch.setattr(forward, "losses", limited)
    assert torch.allclose(gradient_by(forward, encoded, prompt), expected, rtol=1e-4, atol=1e-6)
    assert (queries.size, forward.max_micro_batch) == (0, None)


def test_a_model_that_does_not_fit_is_named_with_its_size(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OUT_OF_MEMORY

    monkeypatch.setattr(torch.nn.Module, "to", fails)
    config = optimize_config(model_folder, model_folder, model_folder).model
    with pytest.raises(OutOfMemory, match=f"model.path={model_folder}.* GB"):
        load_model(config, torch.device("cpu"))


def group(folder: Path, limit: str, usage: str, cached: str, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, usage, f"other 5\n{names[2]} {cached}\n"), strict=True):
        (folder / ("memory.stat" if name == names[2] else name)).write_text(content)


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_limits_of_control_groups_count_and_cached_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "proc").write_text("0::/user/job\n")
    group(tmp_path / "v2/user/job", "max\n", "900\n", "100", V2)
    group(tmp_path / "v2/user", "1000\n", "900\n", "300", V2)
    assert left_in_groups(tmp_path / "proc", tmp_path / "v2") == [400]
    (tmp_path / "proc").write_text("4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n")
    group(tmp_path / "v1/memory/job", "500", "600", "50", V1)
    group(tmp_path / "v1/memory", "2000", "700", "0", V1)
    assert left_in_groups(tmp_path / "proc", tmp_path / "v1") == [0, 1300]
    assert left_in_groups(tmp_path / "none", tmp_path) == []


def test_the_page_cache_is_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine caches files, the tests' own among them, so more is available than lies idle."""
    monkeypatch.setattr(memory, "left_in_groups", lambda: [])
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    idle, cached = (int(lines[key].split()[0]) * 1024 for key in ("MemFree", "Cached"))
    assert memory.free_memory(torch.device("cpu")) > idle + cached // 10


def test_a_validation_loss_that_is_no_number_is_never_the_best() -> None:
    state = TrainingState(best_vectors=torch.zeros(1))
    assert state.update_best(0.5, float("nan"), torch.ones(1)), "the first is better than none"
    assert state.update_best(0.5, 3.0, torch.ones(1))
    assert not state.update_best(0.5, float("nan"), torch.ones(1))
    assert state.best_loss == 3.0


def test_training_rows_that_are_all_too_long_are_said(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    """Validation rows that fit do not help; the batches would have no end."""
    data = tmp_path / "data"
    data.mkdir()
    for file in choice_data.iterdir():
        (data / file.name).write_text(file.read_text())
    lines = (choice_data / "train.jsonl").read_text().replace('"text": "', '"text": "' + 600 * "good bad ")
    (data / "train.jsonl").write_text(lines)
    config = optimize_config(tmp_path / "run", model_folder, data)
    with pytest.raises(DataError, match="training"):
        optimize.run(replace(config, task=replace(config.task, too_long="skip")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a program")
def test_the_peak_is_of_this_program_and_not_of_what_started_it() -> None:
    big = torch.ones(100_000_000)  # 400 MB
    asks = f"import torch; from {memory.__name__} import peak_memory; print(peak_memory(torch.device('cpu')))"
    found = int(subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout)
    peak = memory.peak_memory(torch.device("cpu"))
    assert peak is not None
    assert big.numel() * 4 < peak
    assert found < peak - 200_000_000
