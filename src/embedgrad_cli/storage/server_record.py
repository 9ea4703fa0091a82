"""What a run's files say of the servers that answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class AskedArm(Record):
    """Which model of which server answered for an arm, and the first row as it was sent."""

    server: str
    model: str
    row: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class ServerRecord(Record):
    """An evaluation by chat. What the model's files are, and what it read as tokens, no server tells."""

    arms: dict[str, AskedArm]
    model_digest: Literal["not known"] = "not known"

    @property
    def model(self) -> str:
        """The names of the models that were asked."""
        return ", ".join(dict.fromkeys(arm.model for arm in self.arms.values()))
