"""What one command leaves behind. Every file is written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from embedgrad_cli.errors import UserError

# Settings that may differ between the run that was stopped and the one that resumes it.
FREE_SETTINGS = ("output_dir", "log_level", "device")


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to disk, rename it. Nobody ever sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


class RunDirectory:
    """The folder of one `optimize` run and the names of the files in it.

    Args:
        path: created if it is not there.
        config: all settings; kept in `config.yaml`, against which a resumed run is checked.

    Raises:
        UserError: the folder cannot be written, or holds a run with other settings.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.prompt = path / "prompt.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.samples = path / "samples.jsonl"
        self.config = path / "config.yaml"
        self.log = path / "embedgrad.log"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if self.config.exists():
                self._check_same_settings(config)
            else:
                write_atomically(
                    self.config, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()
                )
        except OSError as error:
            raise UserError(
                f"output_dir={path} cannot be used as a run directory: {error.strerror or error}. "
                "Give a folder that can be written, for instance output_dir=outputs/my-run."
            ) from error

    @property
    def is_finished(self) -> bool:
        """Results are written last, so their file says that the run is complete."""
        return self.results.exists()

    def append_metrics(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def keep_metrics_up_to(self, step: int) -> None:
        """Drop lines after `step`: a resumed run writes them again."""
        if self.metrics.exists():
            rows = []
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:  # the last line of a run that was killed while it wrote
                    break
            write_json_lines(self.metrics, [row for row in rows if row["step"] <= step])

    def _check_same_settings(self, config: dict[str, Any]) -> None:
        before = yaml.safe_load(self.config.read_text(encoding="utf-8")) or {}
        old, new = (_flatten(c) for c in (before, config))
        changed = [
            f"{key}={new.get(key)} (was {old.get(key)})"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and key not in FREE_SETTINGS
        ]
        if changed:
            raise UserError(
                f"output_dir={self.path} holds a run with other settings: {'; '.join(changed)}. Use another "
                "output_dir, or the same settings to resume; nothing was written."
            )


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        k: v
        for key, value in tree.items()
        for k, v in _flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }


def start_logging(path: Path, level: str) -> None:
    """Log to a file in the run directory. Warnings are shown to the user by the display as well."""
    package = logging.getLogger("embedgrad_cli")
    stop_logging()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package.addHandler(handler)
    package.setLevel(level.upper())
    package.propagate = False


def stop_logging() -> None:
    """Close the handlers of an earlier run (a sweep runs several in one process)."""
    package = logging.getLogger("embedgrad_cli")
    for handler in list(package.handlers):
        package.removeHandler(handler)
        handler.close()
