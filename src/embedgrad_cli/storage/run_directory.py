"""What one command leaves behind. Every file is written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import yaml

from embedgrad_cli.errors import UserError

# Settings that may differ between the run that was stopped and the one that resumes it.
FREE_SETTINGS = ("output_dir", "log_level", "device")
SHOWN_SETTINGS = 6  # of those that differ


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


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def dump_settings(config: dict[str, Any]) -> bytes:
    """The content of `config.yaml`."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


class RunDirectory:
    """The folder of one run of `optimize` or `evaluate`, and the names of the files in it.

    Args:
        path: need not exist; nothing is written before `create`.
        config: all settings; kept in `config.yaml`, against which a resumed run is checked.
        free: settings, or groups of settings, that may differ then.

    Raises:
        UserError: the folder cannot be read, or holds a run with other settings.
    """

    def __init__(self, path: Path, config: dict[str, Any], free: Sequence[str] = FREE_SETTINGS) -> None:
        self.path, self._settings, self._free = path, config, free
        self.prompt = path / "prompt.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.samples = path / "samples.jsonl"
        self.answers = path / "answers.partial.jsonl"
        self.config = path / "config.yaml"
        self.log = path / "embedgrad.log"
        if path.exists() and not path.is_dir():
            raise self._unusable("it is a file")
        if self.config.exists():
            self._check_same_settings(config)

    def create(self) -> None:
        """Make the folder and write `config.yaml`, unless a stopped run did.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                write_atomically(self.config, dump_settings(self._settings))
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

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

    def _unusable(self, why: str) -> UserError:
        return UserError(
            f"output_dir={self.path} cannot be used as a run directory: {why}. Give a folder that can be written, "
            "for instance output_dir=outputs/my-run."
        )

    def _check_same_settings(self, config: dict[str, Any]) -> None:
        before = yaml.safe_load(self.config.read_text(encoding="utf-8")) or {}
        old, new = (flatten(c) for c in (before, config))
        changed = [
            f"{key}={new.get(key)} (was {old.get(key)})"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and key not in self._free and key.partition(".")[0] not in self._free
        ]
        if changed:
            more = len(changed) - SHOWN_SETTINGS
            shown = "; ".join(changed[:SHOWN_SETTINGS]) + (f"; and {more} more" if more > 0 else "")
            raise UserError(
                f"output_dir={self.path} holds a run with other settings: {shown}. Use another "
                "output_dir, or the same settings to resume; nothing was written."
            )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys: `{"train": {"steps": 3}}` becomes `{"train.steps": 3}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        k: v for key, value in tree.items() for k, v in flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }


def start_logging(level: str) -> MemoryHandler:
    """Collect log lines until it is clear that the run has a folder; warnings also go to stderr at once.

    Returns: the handler that `log_to` connects with a file.
    """
    package = logging.getLogger("embedgrad_cli")
    for handler in list(package.handlers):  # of an earlier run: a sweep has several in one process
        package.removeHandler(handler)
        handler.close()
    to_user = logging.StreamHandler()
    to_user.setLevel("WARNING")
    to_user.setFormatter(logging.Formatter("embedgrad: %(message)s"))
    collected = MemoryHandler(capacity=1_000, flushLevel=logging.CRITICAL + 1)
    for handler in (to_user, collected):
        package.addHandler(handler)
    package.setLevel(level.upper())
    package.propagate = False
    return collected


def log_to(path: Path, collected: MemoryHandler) -> None:
    """Write what was collected, and everything from now on, to a file."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    collected.setTarget(file)
    collected.close()  # flushes
    package = logging.getLogger("embedgrad_cli")
    package.removeHandler(collected)
    package.addHandler(file)
