"""The forms in which other programs take a prompt: a module for each, named like `format=NAME`.

Each has `write(artifact, config, folder)`: it fills an empty folder and returns a line that says what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedgrad_cli.config.schema import ExportConfig
    from embedgrad_cli.core.prompt.artifact import Artifact

    Writer = Callable[[Artifact, ExportConfig, Path], str]


def writer_of(format: str) -> Writer:
    """The function `write` of one of `config.checks.FORMATS`. No other format's module is imported."""
    match format:
        case "model":
            from embedgrad_cli.exports import model

            return model.write
        case "gguf":
            from embedgrad_cli.exports import gguf

            return gguf.write
        case "peft":
            from embedgrad_cli.exports import peft

            return peft.write
        case "embeds":
            from embedgrad_cli.exports import embeds

            return embeds.write
        case "text":
            from embedgrad_cli.exports import text

            return text.write
        case "hub":
            from embedgrad_cli.exports import hub

            return hub.write
    raise LookupError(format)
