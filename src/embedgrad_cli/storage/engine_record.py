"""What a run's results say of the engine that generated its answers."""

from __future__ import annotations

from dataclasses import dataclass

from embedgrad_cli.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class EngineRecord(Record):
    """The engine's name, as the setting `engine` has it, and its version."""

    name: str
    version: str
