"""What is in an artifact: its seed text, metrics and provenance, and for every token how far its vector is from the
seed's and which tokens are nearest to it. Of the model's files only the embedding table and the tokenizer are read; if
they are not on this machine, that is said and the rest is shown. Nearest tokens are not meanings.

examples:
  embedgrad inspect outputs/demo/prompt.safetensors
  embedgrad inspect prompt.safetensors --verify Qwen/Qwen2.5-0.5B-Instruct
  embedgrad inspect prompt.safetensors --format json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedgrad_cli.commands.flags import FlagParser, check_format
from embedgrad_cli.config import checks
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.prompt.inspection import inspect
from embedgrad_cli.errors import ConfigError, ModelError
from embedgrad_cli.guards.visible_text import visible
from embedgrad_cli.storage.artifact_header import read_header

if TYPE_CHECKING:
    from embedgrad_cli.core.prompt.artifact import Artifact

FORMATS = ("table", "json")
AS_SETTING = "artifact="  # as other commands are told the file, and as messages about it begin


def parser() -> FlagParser:
    """The flags, and the help."""
    flags = FlagParser(
        __doc__, prog="embedgrad inspect", usage="embedgrad inspect FILE [--verify MODEL] [--format FORMAT]"
    )
    flags.add_argument("file", nargs="?", metavar="FILE", help="an artifact: the prompt.safetensors of a run")
    flags.add_argument(
        "--verify",
        metavar="MODEL",
        help="load this model (a folder, GGUF file, hub id or embedded:tiny) and check that the prompt was made for "
        "it; the exit code is 2 if it was not",
    )
    flags.add_argument("--format", default="table", metavar="FORMAT", help="table (the default) or json")
    return flags


def main(argv: Sequence[str]) -> int:
    """Print what is known of an artifact. Returns: exit code 0.

    Raises:
        ConfigError: a flag is wrong.
        ArtifactError: the file cannot be read, or was not made for the model of `--verify`.
        ModelError: the model of `--verify` cannot be loaded.
    """
    args = _parse(argv)
    read_header(args.file)  # what is wrong with the file is said before torch is loaded

    from embedgrad_cli.core.prompt.artifact import load_artifact

    artifact = load_artifact(Path(args.file).expanduser())
    if args.verify:
        _verify(artifact, args.file, args.verify)
    report = inspect(artifact, args.file, args.verify)
    if args.format == "json":
        print(visible(json.dumps(report.to_json(), indent=2, ensure_ascii=False)))
    else:
        from embedgrad_cli.commands.inspect_table import print_report

        print_report(report)
    return 0


def _verify(artifact: Artifact, path: str, model_path: str) -> None:
    from embedgrad_cli.core.model.device import pick_device
    from embedgrad_cli.core.model.load import load_model
    from embedgrad_cli.core.prompt.artifact import check_fingerprint

    recorded = artifact.metadata.config.model
    revision = artifact.metadata.model.revision if model_path == recorded.path else None
    config = ModelConfig(model_path, revision, "auto", recorded.template, trust_remote_code=False)
    try:
        model = load_model(config, pick_device("cpu"))
    except ModelError as error:  # which names the setting that other commands have for it
        raise ModelError(str(error).replace("model.path=", "--verify ")) from error
    check_fingerprint(artifact, model, path)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The values of the flags.

    Raises:
        ConfigError: holds every problem.
    """
    args, problems = parser().parse(argv)
    if args.file is not None:
        args.file = args.file.removeprefix(AS_SETTING)
    else:
        problems.append("no file is given. Name an artifact: embedgrad inspect outputs/demo/prompt.safetensors")
    problems += check_format(args.format, FORMATS)
    if args.verify:
        model = ModelConfig(args.verify, None, "auto", "auto", trust_remote_code=False)
        problems += [problem.replace("model.path:", "--verify:") for problem in checks.check_model(model)]
    if problems:
        raise ConfigError(problems)
    return args
