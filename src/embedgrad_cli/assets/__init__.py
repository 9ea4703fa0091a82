"""The files that come with the package: a tiny model and its tasks, so that a first run needs no download, and everyday
requests, on which every prompt is compared with its seed (`evaluation.elsewhere`)."""

from pathlib import Path

from embedgrad_cli.errors import UserError

PREFIX = "embedded:"
ELSEWHERE = Path(__file__).parent / "elsewhere.jsonl"


def resolve(path: str) -> str:
    """Turn `embedded:NAME` into the packaged folder's path; any other path comes back as it is.

    Raises:
        UserError: there is no packaged folder of that name.
    """
    if not path.startswith(PREFIX):
        return path
    folders = {folder.name: folder for folder in Path(__file__).parent.iterdir() if folder.is_dir()}
    folder = folders.get(path.removeprefix(PREFIX))
    if folder is None:  # also where a path leads out of the package
        names = ", ".join(sorted(f"{PREFIX}{name}" for name in folders if name[0] != "_"))
        raise UserError(f"there is no {path!r} in the package. Embedded are: {names}.")
    return str(folder)
