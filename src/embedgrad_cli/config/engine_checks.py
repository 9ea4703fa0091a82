"""Checks of what another engine than embedgrad's own decoding is asked for. No torch, no network."""

from __future__ import annotations

from embedgrad_cli.config.plugins import engine_missing
from embedgrad_cli.config.schema import EvaluateConfig, OptimizeConfig

GIVEN_TO_ENGINE = (
    *("model", "revision", "dtype", "trust_remote_code", "enable_prompt_embeds", "enable_prefix_caching"),
    *("tokenizer", "tokenizer_revision", "quantization", "load_format"),
)


def check_engine(config: EvaluateConfig | OptimizeConfig) -> list[str]:
    """Whether an engine can generate what a command wants answered, and is there.

    Args: config: its parts are None where they are wrong, which is reported already.
    """
    if config.engine is None:
        return ["engine_args: no engine is named. Give it too: engine=vllm."] if config.engine_args else []
    problems = [
        f"engine_args.{name}: embedgrad gives this to vLLM. Leave it out."
        for name in config.engine_args or {}
        if name in GIVEN_TO_ENGINE
    ]
    if getattr(config, "server", None) is not None:
        problems.append("engine: a server is asked, which has an engine of its own. Leave one of them out.")
    if config.task is not None and config.task.kind == "choice":
        problems.append("engine: vllm generates, and task.kind=choice scores its labels. Leave it out.")
    if config.model is not None and config.model.quantization is not None:
        problems.append(
            "model.quantization: vLLM loads the weights by itself, as their files have them. Leave it out, or engine."
        )
    if not problems and getattr(config, "mode", None) != "regrade" and (missing := engine_missing(config.engine)):
        problems.append(missing)
    return problems
