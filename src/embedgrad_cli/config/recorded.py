"""The settings that an artifact or a run directory recorded, under those that the command line names.

Rights are never among them: what lets code run, or sends something away, is the user's to say in each command. Where
a recorded place is not on this machine, or is none that may be read, the setting that replaces it is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from embedgrad_cli.config.build import COMMANDS, merge, settings
from embedgrad_cli.storage.record import Json

# A revision is one of its own place: another place has another.
REVISION_OF = {"model.path": "model.revision", "task.hub.path": "task.hub.revision"}


@dataclass(frozen=True)
class Recorded:
    """Recorded settings without the rights among them.

    Args:
        settings: nested dicts.
        place: where they were recorded, as messages call it.
        withheld: the rights that were recorded as given, as dotted keys with their values.
    """

    settings: Json
    place: str
    withheld: Json

    @classmethod
    def of(cls, recorded: Json, place: str, command: str, never: Sequence[str] = ()) -> Recorded:
        """Take the rights out of what was recorded, and the keys that are `never` this place's to say."""
        withheld: Json = {}
        for key in never:
            recorded = _without(recorded, key.split("."))
        for key in (key for key, _, item in settings(COMMANDS[command]) if item.metadata["right"]):
            value = _at(recorded, key)
            if value:
                withheld[key] = value
            recorded = _without(recorded, key.split("."))
        return cls(recorded, place, withheld)

    def under(self, plain: Json, hydra: DictConfig, parts: Sequence[str]) -> Json:
        """These parts of the recorded settings, under the groups and keys that the command line names."""
        merged = dict(plain)
        choices = {group for group, choice in hydra.runtime.choices.items() if choice is not None}
        for part in parts:
            if part not in choices and part in self.settings:
                merged[part] = merge(plain[part], self.settings[part])
        for line in hydra.overrides.task:
            part, _, rest = line.lstrip("+~").partition("=")[0].partition(".")
            if part in parts and part not in choices:
                merged[part] = _replace(merged[part], plain[part], rest.split(".") if rest else [])
        for place, revision in REVISION_OF.items():
            if _at(merged, place) != _at(self.settings, place) and _at(merged, revision) is not None:
                merged = _replace(merged, plain, revision.split("."))
        return merged

    def explain(self, problems: Sequence[str], merged: Json) -> list[str]:
        """The problems of a config, with the place and the mending setting where a recorded value is at fault."""
        return [
            f"{problem} It was recorded by {self.place}; {key}=… in this command replaces it." if recorded else problem
            for problem in problems
            for key in [problem.partition(":")[0].partition("[")[0]]  # a list is recorded and replaced as a whole
            for recorded in [_at(merged, key) is not None and _at(merged, key) == _at(self.settings, key)]
        ]

    def notices(self, plain: Json) -> list[str]:
        """A sentence for every right that was recorded and that the user does not give."""
        return [
            f"{self.place} was made with {key}={value}, which it cannot grant: nothing of the kind is done. If you "
            f"trust its author, give {key}={value} yourself."
            for key, value in ((key, str(value).lower()) for key, value in self.withheld.items())
            if not _at(plain, key)
        ]


def _at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _without(tree: Any, path: list[str]) -> Any:
    """A copy of nested dicts without one key."""
    if not isinstance(tree, dict) or path[0] not in tree:
        return tree
    if len(path) == 1:
        return {key: value for key, value in tree.items() if key != path[0]}
    return {**tree, path[0]: _without(tree[path[0]], path[1:])}


def _replace(target: Any, source: Any, path: list[str]) -> Any:
    """`target` with the value that `source` has at `path`; `target` itself stays as it is."""
    if not path or not isinstance(source, dict) or path[0] not in source:
        return source if not path else target
    inner = target.get(path[0]) if isinstance(target, dict) else None
    base = target if isinstance(target, dict) else {}
    return {**base, path[0]: _replace(inner, source[path[0]], path[1:])}
