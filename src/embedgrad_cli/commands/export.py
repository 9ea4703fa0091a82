"""Write a saved prompt in a form that other programs read.

examples:
  embedgrad export artifact=prompt.safetensors
  embedgrad export artifact=prompt.safetensors format=embeds output_dir=DIR
  embedgrad export artifact=prompt.safetensors format=text search.budget=20000
  embedgrad export artifact=prompt.safetensors format=hub --push OWNER/NAME

flags:
  --push OWNER/NAME      upload to the hub (push=OWNER/NAME)
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact, load_artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.exports import writer_of
from embedgrad_cli.storage.files import place_beside
from embedgrad_cli.storage.logs import RunLog
from embedgrad_cli.storage.run_lock import lock_export


def run(config: ExportConfig) -> None:
    """Write the export into `output_dir`, whole or not at all.

    Raises:
        ArtifactError: the artifact cannot be read.
        UserError: the folder is not empty or cannot be written, another process exports to it, or the format cannot
            carry this prompt.
    """
    artifact = load_artifact(Path(config.artifact))
    output_dir = Path(config.output_dir)
    with RunLog(config.log_level), lock_export(output_dir):  # what is warned of reaches the user
        written = _write(artifact, config, output_dir)
    print(f"wrote {output_dir}: {written}")


def _write(artifact: Artifact, config: ExportConfig, output_dir: Path) -> str:
    """Returns: what is in the folder."""
    _check_free(output_dir)
    partial = place_beside(output_dir)
    missing = [folder for folder in (partial, *partial.parents) if not folder.exists()]
    try:
        partial.mkdir(parents=True)
        written = writer_of(config.format)(artifact, config, partial)
        partial.replace(output_dir)  # an empty folder of that name gives way
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing[1:]:
            with suppress(OSError):  # it was never made, or someone else has put something into it
                folder.rmdir()
        # Libraries written in Rust pass the system's error on as text: "… (os error 28)".
        if isinstance(error, OSError) or "(os error" in str(error):
            raise _cannot_write(output_dir, error) from error
        raise
    return written


def _check_free(output_dir: Path) -> None:
    """Raises: UserError, if the export would replace or remove something."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UserError(
            f"output_dir={output_dir} exists and is not an empty folder. Give another; nothing was changed."
        )
    if output_dir.exists() and output_dir.samefile(Path.cwd()):
        raise UserError(
            f"output_dir={output_dir} is the folder you are in, and would be replaced. Give the name of a new one; "
            "nothing was changed."
        )


def _cannot_write(output_dir: Path, error: BaseException) -> UserError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition(" (os error")[0]
    return UserError(
        f"output_dir={output_dir} cannot be written: {why}. Give a folder on a disk with room for "
        "the export; nothing was left behind."
    )
