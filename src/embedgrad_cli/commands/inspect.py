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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedgrad_cli.commands.flags import FlagParser, check_format
from embedgrad_cli.config import checks
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.errors import ConfigError, ModelError
from embedgrad_cli.storage.artifact_header import read_header

if TYPE_CHECKING:
    from embedgrad_cli.core.model.nearest_tokens import TableFile
    from embedgrad_cli.core.prompt.artifact import Artifact

FORMATS = ("table", "json")
SHOWN_NEAREST = 5
SAME_ROW = 0.99  # cosine between a seed token's embedding in the artifact and in the model's files


def parser() -> FlagParser:
    """The flags, and the help."""
    flags = FlagParser(
        __doc__, prog="embedgrad inspect", usage="embedgrad inspect FILE [--verify MODEL] [--format FORMAT]"
    )
    flags.add_argument("file", nargs="?", metavar="FILE", help="an artifact: the prompt.safetensors of a run")
    flags.add_argument(
        "--verify",
        metavar="MODEL",
        help="load this model (a folder, hub id or embedded:tiny) and check that the prompt was made for it; the exit "
        "code is 2 if it was not",
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
    report = describe(artifact, args.file, args.verify)
    if args.format == "json":
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        from embedgrad_cli.commands.inspect_table import print_report

        print_report(report)
    return 0


def describe(artifact: Artifact, path: str, verified: str | None = None) -> dict[str, Any]:
    """Everything `inspect` says, as plain data.

    Returns: `artifact` (its path), `verified` (the model it was compared with, or None), `metadata`, `tokens` and
        `missing` (why there are no nearest tokens, or None). There is a token for each vector, with `slot`, `seed_id`,
        `seed` (its text), `relative_drift`, `cosine` and `nearest`, a list of `id`, `token` and `cosine`, best first.
    """
    from torch.nn.functional import cosine_similarity

    from embedgrad_cli.core.model.nearest_tokens import find_model_folder
    from embedgrad_cli.core.prompt.soft_prompt import relative_drift

    prompt, model = artifact.prompt, artifact.metadata["model"]
    folder = find_model_folder(*((verified, None) if verified else (model["path"], model["revision"])))
    text_of = _token_texts(folder)
    nearest, missing = _nearest(artifact, folder)
    columns = {
        "slot": [number for number, ids in enumerate(prompt.slots.ids) for _ in ids],
        "seed_id": prompt.slots.flat_ids,
        "seed": [text_of(one) for one in prompt.slots.flat_ids],
        "relative_drift": relative_drift(prompt).tolist(),
        "cosine": cosine_similarity(prompt.vectors.detach(), prompt.seed, dim=1).tolist(),
        "nearest": [[{"id": i, "token": text_of(i), "cosine": c} for i, c in near] for near in nearest],
    }
    tokens = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {
        "artifact": path,
        "verified": verified,
        "tokens": tokens,
        "missing": missing,
        "metadata": artifact.metadata,
    }


def _nearest(artifact: Artifact, folder: Path | None) -> tuple[list[list[tuple[int, float]]], str | None]:
    """Ids and cosines of the nearest tokens of each vector, or why there are none."""
    from embedgrad_cli.core.model.nearest_tokens import TableFile, nearest_tokens

    vectors = artifact.prompt.vectors.detach()
    try:
        if folder is None:
            path = artifact.metadata["model"]["path"]
            raise ModelError(f"the model {path} is not on this machine; name its folder with --verify.")
        table = TableFile(folder, vectors.shape[1])
        if not _holds_seed(artifact, table):
            raise ModelError(f"the embeddings in {folder} are not those that the prompt was made for.")
    except ModelError as error:
        return [[] for _ in vectors], str(error)
    ids, cosines = nearest_tokens(vectors, table, SHOWN_NEAREST)
    return [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), cosines.tolist(), strict=True)], None


def _holds_seed(artifact: Artifact, table: TableFile) -> bool:
    """Whether the table has the seed's embeddings; a factor is no difference, as some models scale theirs."""
    import torch
    from torch.nn.functional import cosine_similarity

    ids = torch.tensor(artifact.prompt.slots.flat_ids)
    alike = torch.zeros(len(ids))
    for first, rows in table:
        here = (ids >= first) & (ids < first + len(rows))
        alike[here] = cosine_similarity(rows[ids[here] - first].float(), artifact.prompt.seed[here], dim=1)
    return bool((alike > SAME_ROW).all())


def _token_texts(folder: Path | None) -> Callable[[int], str | None]:
    """What an id of the model's tokenizer reads; None for all if there is no tokenizer."""
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.is_file():
        return lambda token: None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda token: tokenizer.decode([token], skip_special_tokens=False)


def _verify(artifact: Artifact, path: str, model_path: str) -> None:
    from embedgrad_cli.core.model.language_model import load_model, pick_device
    from embedgrad_cli.core.prompt.artifact import check_fingerprint

    recorded = artifact.metadata["config"]["model"]
    revision = recorded["revision"] if model_path == recorded["path"] else None
    config = ModelConfig(model_path, revision, "auto", recorded["template"], trust_remote_code=False)
    check_fingerprint(artifact, load_model(config, pick_device("cpu")), path)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The values of the flags.

    Raises:
        ConfigError: holds every problem.
    """
    args, problems = parser().parse(argv)
    if args.file is None:
        problems.append("no file is given. Name an artifact: embedgrad inspect outputs/demo/prompt.safetensors")
    problems += check_format(args.format, FORMATS)
    if args.verify:
        model = ModelConfig(args.verify, None, "auto", "auto", trust_remote_code=False)
        problems += [problem.replace("model.path:", "--verify:") for problem in checks.check_model(model)]
    if problems:
        raise ConfigError(problems)
    return args
