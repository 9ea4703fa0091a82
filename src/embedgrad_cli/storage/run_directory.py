"""What one command leaves behind. Every file is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedgrad_cli.errors import UserError
from embedgrad_cli.storage.files import json_line, read_yaml, write_json, write_json_lines, write_yaml
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.run_digests import RunDigests

SHOWN_SETTINGS = 6  # of those that differ


class RunDirectory:
    """The folder of one run of `optimize` or `evaluate`, and the names of the files in it.

    Args:
        path: need not exist; nothing is written before `create`.
        config: all settings; kept in `config.yaml`, against which a resumed run is checked.
        free: settings, or groups of settings, that may differ then.

    Raises:
        UserError: the folder cannot be read, or holds a run with other settings.
    """

    def __init__(self, path: Path, config: Json, free: Sequence[str] = ()) -> None:
        self.path, self._settings, self._free = path, config, free
        self.prompt = path / "prompt.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self.teacher = path / "teacher.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.samples = path / "samples.jsonl"
        self.overlap = path / "overlap.json"
        self.rendered = path / "rendered.json"
        self.measured = path / "measured.json"
        self.digests = path / "digests.json"
        self.server = path / "server.json"
        self.answers = path / "answers.partial.jsonl"
        self.targets = path / "targets.jsonl"
        self.partial_targets = path / "targets.partial.jsonl"
        self.config = path / "config.yaml"
        self.log = path / "embedgrad.log"
        if path.exists() and not path.is_dir():
            raise self._unusable("it is a file")
        grow_in_place = (self.metrics, self.answers, self.partial_targets, self.log)  # others are replaced
        for file in grow_in_place:
            if file.is_symlink():
                raise self._unusable(f"{file.name} in it is a link to another file, which would be written")
        if self.config.exists():
            self._check_same_settings(config)

    def create(self, digests: RunDigests | None = None) -> None:
        """Make the folder and write `config.yaml`, unless a stopped run did.

        Args:
            digests: go into `digests.json`, where they are kept until there are results.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                if digests is not None:
                    write_json(self.digests, digests)
                write_yaml(self.config, self._settings)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

    @property
    def is_finished(self) -> bool:
        """Results are written last, so their file says that the run is complete."""
        return self.results.exists()

    @property
    def was_killed_at_its_end(self) -> bool:
        """Whether there are results, and still what a run without results goes on from."""
        return self.is_finished and (self.answers.exists() or self.partial_targets.exists())

    def forget_unfinished(self) -> None:
        """Remove what a run without results goes on from: the last that a run does."""
        self.partial_targets.unlink(missing_ok=True)
        self.answers.unlink(missing_ok=True)

    def append_metrics(self, row: StepMetrics | ValidationMetrics) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json_line(row))

    def keep_metrics_up_to(self, step: int, with_validation: bool = True) -> None:
        """Drop lines after `step`, or from its validation on: a resumed run writes them again."""
        if self.metrics.exists():
            rows = []
            for line in self.metrics.read_bytes().splitlines():
                try:
                    row = json.loads(line)
                    if (int(row["step"]), "loss" not in row) <= (step, with_validation):
                        rows.append(row)
                except (ValueError, TypeError, KeyError, RecursionError):  # the last line of a run that was killed
                    break
            write_json_lines(self.metrics, rows)

    def _unusable(self, why: str) -> UserError:
        return UserError(
            f"output_dir={self.path} cannot be used as a run directory: {why}. Give a folder that can be written, "
            "for instance output_dir=outputs/my-run."
        )

    def _check_same_settings(self, config: Json) -> None:
        before = read_settings(self.config)
        if is_optimisation(before) != is_optimisation(config):
            held, wanted = (kind_of(settings) for settings in (before, config))
            raise UserError(
                f"output_dir={self.path} holds {held}, and {wanted} needs a folder of its own. Give another "
                "output_dir; nothing was written."
            )
        old, new = flatten(before), flatten(config)
        changed = [
            f"{key}={new.get(key)} (was {old.get(key)})"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not is_among(key, self._free)
        ]
        if changed:
            more = len(changed) - SHOWN_SETTINGS
            shown = "; ".join(changed[:SHOWN_SETTINGS]) + (f"; and {more} more" if more > 0 else "")
            raise UserError(
                f"output_dir={self.path} holds a run with other settings: {shown}. Use another "
                "output_dir, or the same settings to resume; nothing was written."
            )


def is_among(key: str, settings: Sequence[str]) -> bool:
    """Whether a setting, by its dotted key, is one of these, or in one of these groups."""
    return key in settings or key.partition(".")[0] in settings


def is_optimisation(settings: Json) -> bool:
    """Whether these are the settings of `optimize`, and not of `evaluate`."""
    return "optimizer" in settings


def kind_of(settings: Json) -> str:
    """What a run with these settings is, in words."""
    return "an optimisation" if is_optimisation(settings) else "an evaluation"


def read_settings(file: Path) -> Json:
    """The settings in a run's `config.yaml`. Those that its version did not know have the value that it worked with.

    Raises:
        UserError: the file cannot be read.
    """
    settings = read_yaml(file)
    _default(settings, "task", "score", "sum")
    if is_optimisation(settings):
        settings.setdefault("objective", {"name": "gold", "choice_weight": 1.0, "gold_weight": 0.0})
    if "generation" in settings:  # an evaluation's
        _default(settings, "generation", "seed", settings.get("seed"))
        _default(settings, "task", "overlap", "error")
    return settings


def _default(settings: Json, group: str, key: str, value: Any) -> None:
    """What a group has that lacks a key; whether there is a group, and it is one, is looked at by whoever reads it."""
    if isinstance(settings.get(group), dict):
        settings[group].setdefault(key, value)


def flatten(tree: Any, prefix: str = "") -> Json:
    """Nested dicts as one with dotted keys: `{"train": {"steps": 3}}` becomes `{"train.steps": 3}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        k: v for key, value in tree.items() for k, v in flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }
