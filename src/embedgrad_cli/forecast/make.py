"""From a config to its forecast."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from embedgrad_cli.config.dry_run import DryRun
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.kernels.memory import free_memory, resident_memory
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.unloaded import load_unloaded
from embedgrad_cli.core.passes.operations import Costs
from embedgrad_cli.errors import UserError
from embedgrad_cli.forecast.changes import find_changes
from embedgrad_cli.forecast.figures import DeviceFigures, Forecast, ModelFigures, TimeFigures
from embedgrad_cli.forecast.memory import Place, moments_of, weights_of
from embedgrad_cli.forecast.timing import assumed_time, time_run
from embedgrad_cli.forecast.workload import Workload
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Splits


def make_forecast(config: OptimizeConfig, request: DryRun) -> Forecast:
    """Rows, tokens, operations and memory of a run, and, if asked for, its time.

    No weights are loaded unless the time is measured. Nothing is written.

    Raises:
        UserError: the device is not here, and its memory is not given or its speed is asked for.
        ModelError, DataError, TemplateError: as a run would.
    """
    device = _device(config, request)
    started = time.perf_counter()
    config, splits = load_for(config)
    outline = load_unloaded(config.model, device.type)
    place = _place(device, request)  # before the libraries that only a forecast needs
    facts = _try_out(config, splits, device, time.perf_counter() - started) if request.timed else None
    if facts is not None:
        outline.reads_trunk_in_place &= facts.in_place
    work = Workload.of(config, outline, splits, facts.shares_trunk if facts else True)
    costs = Costs.of(outline.network)
    step, validation, test = work.step_figures(costs), work.validation_figures(costs), work.test_figures(costs)
    seconds = facts.time if facts else None
    if facts is None and request.tflops is not None:
        seconds = assumed_time(work, step, (validation.operations, test.operations), request.tflops)
    moments = moments_of(work, place)
    return Forecast(
        task=config.task.name,
        generates=config.task.kind == "generation",
        max_new_tokens=config.task.max_new_tokens,
        model=_model_figures(outline),
        device=DeviceFigures(str(device), place.memory, request.memory is not None),
        num_rows=(len(work.examples), len(work.validation.rows), len(work.test.rows)),
        prompt_tokens=work.prompt.slots.num_tokens,
        steps=len(work.batches),
        validations=work.num_validations,
        step=step,
        validation=validation,
        test=test,
        moments=moments,
        training_answers=_training_answers(config, len(work.examples)),
        time=seconds,
        changes=find_changes(work, place, moments),
    )


@dataclass(frozen=True)
class _TriedOut:
    """What only the loaded model tells."""

    time: TimeFigures
    shares_trunk: bool
    in_place: bool


def _try_out(config: OptimizeConfig, splits: Splits, device: torch.device, before: float) -> _TriedOut:
    """Args: before: seconds that the run would have taken so far."""
    started = time.perf_counter()
    model = load_model(config.model, device)
    work = Workload.of(config, model, splits)
    figures = time_run(work, before + time.perf_counter() - started)
    return _TriedOut(figures, work.forward.shares_trunk, model.reads_trunk_in_place)


def _device(config: OptimizeConfig, request: DryRun) -> torch.device:
    """The device, or one of the kind that is asked for where that is not here and its memory is given."""
    is_elsewhere = config.device.startswith("cuda") and not torch.cuda.is_available()
    if not is_elsewhere:
        return pick_device(config.device)
    if request.timed or request.memory is None:
        wanted = "--dry-run=time runs on the device" if request.timed else "its memory is not known"
        raise UserError(
            f"device={config.device} is not here, and {wanted}. Give the memory of the device that you mean: "
            f"device={config.device} --dry-run --memory 24 (GB), or forecast for this machine: device=cpu."
        )
    return torch.device("cuda")


def _place(device: torch.device, request: DryRun) -> Place:
    program = resident_memory() if device.type == "cpu" else 0
    if request.memory is not None:
        return Place(device.type, request.memory, program)
    free = free_memory(device) if device.type in ("cpu", "cuda") else 0
    return Place(device.type, free + program if free else None, program)


def _training_answers(config: OptimizeConfig, rows: int) -> int:
    settings = config.objective
    return rows * (settings.samples or 1) * (settings.rounds or 1) if settings.name == "verified" else 0


def _model_figures(model: LanguageModel) -> ModelFigures:
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    return ModelFigures(model.path, parameters, model.dtype_name, weights_of(model))
