"""`embedgrad inspect`: what is in an artifact, where it comes from, and how far its vectors went.

The model is not loaded for this: of its files only the embedding table and the tokenizer are read, if they are here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedgrad_cli.cli.help import INSPECT
from embedgrad_cli.commands.inspection import (
    inspect,
)
from embedgrad_cli.config import checks
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.config.spelling import nearest
from embedgrad_cli.errors import ConfigError
from embedgrad_cli.storage.artifact_header import read_header

if TYPE_CHECKING:
    from embedgrad_cli.core.prompt.artifact import Artifact

FORMATS = ("table", "json")


def main(argv: list[str]) -> int:
    """Print what is known of an artifact. Returns: exit code 0.

    Raises:
        ConfigError: a flag is wrong.
        ArtifactError: the file cannot be read, or was not made for the model of `--verify`.
        ModelError: the model of `--verify` cannot be loaded.
    """
    if "-h" in argv or "--help" in argv:
        print(INSPECT, end="")
        return 0
    args = _parse(argv)
    read_header(args.file)  # what is wrong with the file is said before torch is loaded

    from embedgrad_cli.core.prompt.artifact import load_artifact

    artifact = load_artifact(Path(args.file).expanduser())
    if args.verify:
        _verify(artifact, args.file, args.verify)
    report = inspect(artifact, args.file, args.verify)
    if args.format == "json":
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        from embedgrad_cli.commands.inspect_table import print_report

        print_report(report)
    return 0


def _verify(artifact: Artifact, path: str, model_path: str) -> None:
    from embedgrad_cli.core.model.language_model import load_model, pick_device
    from embedgrad_cli.core.prompt.artifact import check_fingerprint

    recorded = artifact.metadata.config.model
    revision = recorded.revision if model_path == recorded.path else None
    config = ModelConfig(model_path, revision, "auto", recorded.template, trust_remote_code=False)
    check_fingerprint(artifact, load_model(config, pick_device("cpu")), path)


def _parse(argv: list[str]) -> argparse.Namespace:
    def fail(message: str) -> Any:
        raise ConfigError([f"{message}. `embedgrad inspect --help` lists the flags."])

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = fail  # type: ignore[method-assign]
    parser.add_argument("file", nargs="?")
    parser.add_argument("--verify", metavar="MODEL")
    parser.add_argument("--format", default="table")
    args = parser.parse_intermixed_args(argv)
    problems = []
    if args.file is None:
        problems.append("no file is given. Name an artifact: embedgrad inspect outputs/demo/prompt.safetensors")
    if args.format not in FORMATS:
        close = nearest(args.format, FORMATS)
        hint = f" Did you mean {close}?" if close else ""
        problems.append(f"--format {args.format}: there is no such format.{hint} Formats are {', '.join(FORMATS)}.")
    if args.verify:
        model = ModelConfig(args.verify, None, "auto", "auto", trust_remote_code=False)
        problems += [problem.replace("model.path:", "--verify:") for problem in checks.check_model(model)]
    if problems:
        raise ConfigError(problems)
    return args
