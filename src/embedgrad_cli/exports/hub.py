"""`format=hub`: a folder ready for the hub, uploaded if `push=OWNER/NAME` says so."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.errors import EmbedgradError, UserError, first_line
from embedgrad_cli.exports.model_card import model_card
from embedgrad_cli.storage.files import write_atomically

FILES = ("README.md", "prompt.safetensors", "config.yaml")


class UploadError(EmbedgradError):
    """The hub refused the upload, or is not in reach."""


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write the artifact itself, its settings and a model card, and upload them if asked to.

    Raises:
        UserError: an upload cannot be confirmed, or no one is logged in.
        UploadError: the upload failed; the hub takes all files in one commit or none.
    """
    if config.push:
        _check_can_push(config)
    name = (config.push or Path(config.output_dir).resolve().name).rpartition("/")[2]
    contents = {
        "README.md": model_card(artifact.metadata, name).encode(),
        "prompt.safetensors": Path(config.artifact).expanduser().read_bytes(),
        "config.yaml": yaml.safe_dump(artifact.metadata.settings, sort_keys=False, allow_unicode=True).encode(),
    }
    for file in FILES:
        write_atomically(folder / file, contents[file])
    written = f"{', '.join(FILES)}; choose a licence in README.md{_local_paths(artifact)}"
    if not config.push:
        return written
    size = sum(map(len, contents.values()))
    if not (config.yes or _confirmed(f"Upload {len(FILES)} files ({size:,} bytes) to {config.push}?")):
        return f"{written}; not uploaded"
    return f"{written}; uploaded to {_upload(folder, config.push)}"


def _check_can_push(config: ExportConfig) -> None:
    """Before anything is written: that someone can be asked, and that the hub will know who uploads."""
    from huggingface_hub import get_token

    if not config.yes and not sys.stdin.isatty():
        raise UserError(
            f"push={config.push}: an upload asks first, and there is no terminal to ask on. Add yes=true to upload "
            "without asking, or leave push out. Nothing was written."
        )
    if get_token() is None:
        raise UserError(
            f"push={config.push}: no one is logged in to the hub. Run `hf auth login` or set HF_TOKEN, with a token "
            "that may write. Nothing was written."
        )


def _confirmed(question: str) -> bool:
    print(f"{question} A repository that does not exist yet is made, private. [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _upload(folder: Path, repository: str) -> str:
    """Upload the folder in one commit. Returns: the address of the commit."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="embedgrad")
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Upload a soft prompt with embedgrad",
        )
    except Exception as error:  # refused, out of reach, offline: each library below has exceptions of its own
        raise UploadError(
            f"push={repository}: the upload failed: {first_line(error)} Nothing was kept here either; the same "
            "command again repeats both, and without push it writes the folder alone."
        ) from error
    return str(commit.commit_url)


def _local_paths(artifact: Artifact) -> str:
    """A word on paths of this machine that the artifact's settings name, as they would be published."""
    config = artifact.metadata.config
    places = {"model.path": config.model.path, "task.data_dir": config.task.data_dir}
    local = [key for key, path in places.items() if path and Path(path).is_absolute()]
    return f" (its settings name folders of this machine: {', '.join(local)})" if local else ""
