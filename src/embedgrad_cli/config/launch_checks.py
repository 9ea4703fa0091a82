"""Checks of how a run is laid out over processes and devices. No torch."""

from __future__ import annotations

from embedgrad_cli.config.schema import EvaluateConfig, LaunchConfig, ModelConfig, OptimizeConfig


def check_launch(launch: LaunchConfig, model: ModelConfig, device: str) -> list[str]:
    """Rows are shared, or the model is laid over several devices: not both."""
    problems = []
    several, divided = (launch.processes or 1) > 1, launch.tensor_parallel is not None
    if several and divided:
        problems.append(
            "launch.processes: with launch.tensor_parallel all processes work on the same rows, and sharing rows "
            "beside that is not supported. Leave launch.processes out."
        )
    if launch.device_map is None:
        return problems + _quantised("tensor_parallel", model) * divided
    if several or divided:
        other = "tensor_parallel" if divided else "processes"
        problems.append(f"launch.device_map: it is for one process, and launch.{other} has several. Leave one out.")
    if device != "auto":
        problems.append(f"launch.device_map: it takes all GPUs, and device={device} names one. Leave device out.")
    return problems + _quantised("device_map", model)


def _quantised(key: str, model: ModelConfig) -> list[str]:
    if model.quantization is None:
        return []
    return [f"launch.{key}: it was not tried together with model.quantization. Leave one of them out."]


def check_shared(config: EvaluateConfig | OptimizeConfig) -> list[str]:
    """Several processes answer by embedgrad's own decoding alone."""
    alone, launch = works_alone(config), config.launch
    if alone is None or launch is None:
        return []
    given = [name for name, value in vars(launch).items() if value not in (None, 1)]
    asks = getattr(config, "server", None) is not None
    more = " Of a server, requests.at_once says how many answers are awaited at a time." if asks else ""
    return [f"launch.{name}: {alone} is the work of one process. Leave it out.{more}" for name in given]


def works_alone(config: EvaluateConfig | OptimizeConfig) -> str | None:
    """What of a command only one process does, in words; None: several share it.

    Args: config: its parts are None where they are wrong. Only an evaluation has a server.
    """
    command = "an evaluation" if hasattr(config, "server") else "an optimisation"
    if getattr(config, "server", None) is not None:
        return f"{command} with server=URL"
    if config.engine is not None:
        return f"{command} with engine={config.engine}"
    return f"{command} with --regrade" if getattr(config, "mode", None) == "regrade" else None
